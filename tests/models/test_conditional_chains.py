"""Chains with labels of their own: the labels follow them wherever the sampler moves them."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from models.composed import ClippedEnergy, Conditional
from models.gradients import Energy, energy_gradient, gradient_of, rows_of
from models.langevin import LangevinConfig, add_energies, run_langevin
from models.noise import SeededNoise

CENTRES = torch.tensor([-40.0, -10.0, 0.0, 15.0, 60.0])
CONFIG = LangevinConfig(num_steps=120, step_size=0.4, temperature=1.0)
SPREAD = 1.3
"""Above the standard deviation of a chain about its centre: 1 in the limit of small steps."""


def quadratic(x: Tensor, labels: Tensor) -> Tensor:
    """|x - c[y]|^2 / 2."""
    return (x - CENTRES[labels].view(-1, 1, 1, 1)).flatten(1).square().sum(1) / 2


def flat(x: Tensor) -> Tensor:
    return 0 * x.flatten(1).sum(1)


class QuadraticNetwork(nn.Module):
    """The same as a network."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(CENTRES.clone())

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return (x - self.centres[labels].view(-1, 1, 1, 1)).flatten(1).square().sum(1) / 2


@pytest.fixture(params=[1, 3])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def composed(labels: Tensor) -> dict[str, Energy]:
    one = Conditional(quadratic, labels)
    return {
        "function": one,
        "network": Conditional(QuadraticNetwork(), labels),
        "sum": add_energies([(one, 0.5), (flat, 1.0), (Conditional(quadratic, labels), 0.5)]),
        "clipped": ClippedEnergy(one, 1e9),
        "clipped sum": ClippedEnergy(add_energies([(one, 1.0)]), 1e9),
    }


LABELS = torch.randint(5, (70,), generator=torch.Generator().manual_seed(0))
KINDS = pytest.mark.parametrize("kind", composed(LABELS))


@KINDS
@pytest.mark.parametrize("settle", [None, 2.0])
def test_every_chain_comes_to_the_centre_of_its_own_label(cores: int, settle: float | None, kind: str) -> None:
    config = CONFIG.model_copy(update={"settle": settle})
    noise = SeededNoise(torch.Generator().manual_seed(1))
    ends, info = run_langevin(composed(LABELS)[kind], torch.zeros(70, 1, 8, 8), config, randn_like=noise)
    assert float((ends.mean((1, 2, 3)) - CENTRES[LABELS]).abs().max()) < 1
    assert float((ends - CENTRES[LABELS].view(-1, 1, 1, 1)).std()) < SPREAD
    assert (info.num_steps < CONFIG.num_steps).any() == (settle is not None), "chains leave at their own times"


def test_chains_that_run_their_own_number_of_steps_keep_their_labels() -> None:
    """Without noise a chain of n steps has come (1 - a)^n near its centre; the batch is padded to multiples of 16."""
    counts = torch.arange(70) % 9
    start = torch.zeros(70, 1, 2, 2)
    energy = Conditional(quadratic, LABELS)
    ends, _ = run_langevin(energy, start, CONFIG, num_steps=counts, randn_like=torch.zeros_like)
    expected = CENTRES[LABELS] * (1 - (1 - CONFIG.drift_rate) ** counts)
    assert torch.allclose(ends[:, 0, 0, 0], expected, atol=1e-4)


def test_shuffled_chains_run_as_they_do_in_order() -> None:
    order = torch.randperm(70, generator=torch.Generator().manual_seed(2))
    start = torch.randn(70, 1, 4, 4)
    energy = Conditional(quadratic, LABELS)
    ends, _ = run_langevin(energy, start, CONFIG, randn_like=torch.zeros_like)
    shuffled, _ = run_langevin(energy.rows(order), start[order], CONFIG, randn_like=torch.zeros_like)
    assert torch.equal(shuffled, ends[order])


@KINDS
@pytest.mark.parametrize("index", [slice(3, 9), torch.tensor([8, 2, 2, 60])])
def test_rows_of_an_energy_and_of_its_gradient_agree(kind: str, index: slice | Tensor) -> None:
    energy, x = composed(LABELS)[kind], torch.randn(70, 1, 3, 3)
    whole, grad = energy_gradient(energy, x, "float32")
    for part in (gradient_of(rows_of(energy, index), "float32"), rows_of(gradient_of(energy, "float32"), index)):
        found, found_grad = part(x[index])
        assert torch.allclose(found, whole[index])
        assert torch.allclose(found_grad, grad[index], atol=1e-5)


def test_what_holds_nothing_for_each_chain_is_left_alone() -> None:
    assert rows_of(flat, slice(2)) is flat
