"""The parts of IGEBM's learning (arXiv 1903.08689) against their formulas."""

import math

import pytest
import torch
from torch import Tensor, nn

from models.banks import Fresh, PersistentBank
from models.data import ImageDataset
from models.langevin import LangevinConfig, run_langevin
from models.networks.vector_energy import VectorEnergy
from models.pixels import dequantise_within, from_uint8, to_unit
from models.training.average import WeightAverage
from models.training.batches import DataStreams
from models.training.chain_gradient import followed, run_last_steps
from models.training.distributed import ALONE
from models.training.energy_state import EnergyTraining
from models.training.objectives import label_loss, logsumexp, objective
from models.training.optimization import clip_to_spread
from models.training.sections import ImplicitRun
from tests.models.small_networks import CentredEnergy, QuadraticEnergy


def section(**values: object) -> ImplicitRun:
    return ImplicitRun.model_validate({"updates": 1, "learning_rates": 1e-3} | values)


@pytest.fixture
def numbers() -> ImageDataset:
    """Image i holds the constant i, and has the label i modulo 7."""
    rows = torch.arange(200)
    return ImageDataset("numbers", rows.to(torch.uint8).view(-1, 1, 1, 1), rows % 7, tuple("abcdefg"))


def energies() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(6, generator=generator).requires_grad_(True) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["linear", "logsumexp", "softplus"])
@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_gradients_of_the_objectives(kind: str, penalty: float) -> None:
    positive, negative = energies()
    loss = objective(positive, negative, section(objective=kind, penalty=penalty), 1e-6, 6, ALONE)
    found = torch.autograd.grad(loss, (positive, negative))
    expected = {
        "linear": positive.mean() - negative.mean(),
        "logsumexp": positive.mean() + (-negative).logsumexp(0) - math.log(6),
        "softplus": (1 + (positive - negative).exp()).log().mean(),
    }[kind] + penalty * (positive.square().mean() + negative.square().mean())
    for part, other in zip(found, torch.autograd.grad(expected, (positive, negative)), strict=True):
        assert torch.allclose(part, other, atol=1e-6)
    if kind != "logsumexp":
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_lowest_negatives_weigh_most_where_the_objective_is_logsumexp() -> None:
    negative = torch.tensor([0.0, 10.0], requires_grad=True)
    (grad,) = torch.autograd.grad(logsumexp(torch.zeros(2), negative, 2, ALONE), negative)
    assert torch.allclose(grad, torch.tensor([-1.0, -math.exp(-10)]), atol=1e-4)


def test_labels_that_change_nothing_teach_only_what_is_a_labels_own() -> None:
    """All labels begin alike: log K, and the gradients of what they share cancel."""
    torch.manual_seed(0)
    network = VectorEnergy(4, [8], classes=3)
    loss = label_loss(network, torch.randn(6, 1, 2, 2), torch.tensor([0, 0, 1, 0, 2, 2]), 3, 1.0, 6)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(3), abs=1e-6)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        largest = float(parameter.grad.abs().max())
        assert largest > 1e-3 if name.endswith(("shift", "gain")) else largest < 1e-6, name


@pytest.mark.parametrize(("labels", "gap"), [([0, 1], -32.0), ([1, 0], 32.0)])
def test_the_label_loss_is_low_where_the_true_label_has_the_lower_energy(labels: list[int], gap: float) -> None:
    """Centres at 0 and 1 in 64 pixels: the other label's energy is 32 higher than a centre's own."""
    network = CentredEnergy(2)
    with torch.no_grad():
        network.centres[1] = 1.0
    images = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    for temperature in (1.0, 20.0):
        loss = label_loss(network, images, torch.tensor(labels), 2, temperature, count=4)  # another process has others
        assert loss.item() == pytest.approx(0.5 * math.log1p(math.exp(gap / temperature)), abs=1e-6)


def test_gradients_are_clamped_to_their_spread_as_in_the_papers_adam() -> None:
    """Elements within 3 sqrt(v) + 0.1, v unbiased, before the step takes them in; written out for beta1 = 0."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(50))
    optimizer = torch.optim.Adam([weight], 0.01, betas=(0.0, 0.9))
    v, expected = torch.zeros(50), torch.zeros(50)
    shortened = 0
    for step in range(1, 8):
        gradient = torch.randn(50) * (5 if step == 6 else 0.3)
        weight.grad = gradient.clone()
        clip_to_spread(optimizer, (3.0, 0.1))
        limit = 3 * (v / (1 - 0.9 ** (step - 1))).sqrt() + 0.1 if step > 1 else torch.full((50,), 0.1)
        clamped = gradient.clamp(-limit, limit)
        shortened += int((clamped != gradient).sum())
        v = 0.9 * v + 0.1 * clamped**2
        expected = expected - 0.01 * clamped / ((v / (1 - 0.9**step)).sqrt() + 1e-8)
        optimizer.step()
    assert torch.allclose(weight.detach(), expected, atol=1e-5)
    assert 20 < shortened < 300
    weight.grad = torch.full((50,), 1e9)
    clip_to_spread(optimizer, None)
    assert weight.grad.min() == 1e9


def test_dequantised_pixels_are_uniform_in_their_256th_of_the_range() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(400, 1)
    images = dequantise_within(pixels, torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0)))
    unit = to_unit(images)
    assert float(images.min()) >= -1
    assert float(images.max()) < 1
    assert torch.equal((256 * unit).floor().to(torch.uint8), pixels)
    papers = 255 / 256 * to_unit(from_uint8(pixels)) + 0.5 / 256
    assert torch.allclose(unit.mean(0), papers.mean(0), atol=5 / 256 / math.sqrt(12 * 400))


def test_labels_are_those_of_the_images(numbers: ImageDataset) -> None:
    """Batch by batch, mirrored or not, and from where a checkpoint left the stream."""
    streams = DataStreams(numbers, 3, flip=True)
    batches, labels = streams.batches("positives", 8), streams.labels("positives", 8)
    for _ in range(3):
        assert torch.equal(next(batches).flatten() % 7, next(labels))
    again = DataStreams(numbers, 3, flip=True)
    again.load_state_dict(streams.state_dict())
    resumed, labels = again.batches("positives", 8), again.labels("positives", 8)
    following, own = next(resumed), next(labels)
    assert torch.equal(following, next(batches))
    assert torch.equal(own, following.flatten() % 7)


def test_chains_keep_their_labels() -> None:
    """Every image is its label, whichever chains restart; after a checkpoint too."""
    generator = torch.Generator().manual_seed(0)

    def source(count: int) -> Fresh:
        labels = torch.randint(1000, (count,), generator=generator)
        return Fresh(labels.float().view(-1, 1, 1, 1), labels=labels)

    bank = PersistentBank.filled(source, 300, torch.float32)
    first = bank.labels
    assert first is not None
    first = first.clone()
    for update in range(40):
        slots = bank.draw(100, generator)
        restarted = bank.due(slots, 0.3, 0, generator)
        bank.put(slots, bank.starts(slots, source(int(restarted.sum())), restarted), restarted)
        if update == 20:
            bank = PersistentBank.restored(bank.state_dict(), torch.device("cpu"), torch.float32)
    assert bank.labels is not None
    assert torch.equal(bank.states.whole().flatten(), bank.labels.float())
    assert float((bank.labels != first).float().mean()) > 0.9


def test_a_bank_in_low_precision_does_not_drift() -> None:
    """IGEBM's code keeps floor(255 u) and reads it as a 256th: 300 visits leave (255/256)^300 = 31 % of an intensity.

    Of 250 chains at each level of grey, that walk without a gradient, the mean stays.
    """
    levels = torch.linspace(-0.95, 0.95, 16).view(-1, 1, 1, 1, 1).expand(16, 250, 1, 1, 1).flatten(0, 1)
    bank = PersistentBank.filled(lambda count: Fresh(levels), len(levels), torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    slots, stays = torch.arange(len(levels)), torch.zeros(len(levels), dtype=torch.bool)
    for _ in range(10):
        still = bank.starts(slots, Fresh(levels[:0]), stays)
        bank.put(slots, still, stays)
    assert torch.equal(bank.states.held, levels.bfloat16()), "reading and writing alone changes no bit"
    for _ in range(300):
        moved = bank.starts(slots, Fresh(levels[:0]), stays).images.float()
        bank.put(slots, Fresh(moved + 0.01 * torch.randn(moved.shape, generator=generator)), stays)
    ends = bank.states.held.float().view(16, 250)
    # Rounding to bfloat16 near 1 adds at most 2^-9 of noise of no sign to each of the steps of 0.01.
    error = 0.01 * math.sqrt(300 * 1.1) / math.sqrt(250)
    assert float((ends.mean(1) - levels.view(16, 250)[:, 0]).abs().max()) < 4 * error
    assert 4 * error < 0.1 * 0.95, "a shrinking to 31 % would be seen"


SAMPLER = LangevinConfig(num_steps=6, step_size=1e-5, temperature=1e-9)
RATE = SAMPLER.drift_rate  # 0.05


def training(network: nn.Module, numbers: ImageDataset) -> EnergyTraining:
    optimizer = torch.optim.Adam(network.parameters())
    generator = torch.Generator().manual_seed(0)
    return EnergyTraining(network, WeightAverage(network, 0.9), optimizer, DataStreams(numbers, 0, False), generator)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_gradient_through_a_chain_is_the_closed_form(numbers: ImageDataset, steps: int) -> None:
    """On c/2 |x|^2 the end is (1 - r c)^K x, which the energy of a frozen c' judges: c'/2 |end|^2."""
    network = QuadraticEnergy(2.0)
    x = torch.randn(40, 1, 2, 2)
    ends, lengths, term = run_last_steps(
        training(network, numbers), network, Fresh(x), SAMPLER, section(kl_steps=steps, kl_weight=0.5)
    )
    shrink = 1 - RATE * 2
    assert torch.allclose(ends, shrink**steps * x, atol=1e-3)
    assert not ends.requires_grad
    per_chain = x.flatten(1).square().sum(1)
    expected_lengths = sum(RATE * 2 * shrink**k for k in range(steps)) * per_chain.sqrt()
    assert torch.allclose(lengths, expected_lengths, rtol=1e-2)
    term.backward()
    expected = 0.5 * 2.0 * float(per_chain.mean()) * shrink ** (2 * steps - 1) * -steps * RATE
    assert network.curvature.grad is not None
    assert network.curvature.grad.item() == pytest.approx(expected, rel=1e-2)
    assert term.item() == pytest.approx(0.5 * float(per_chain.mean()) * shrink ** (2 * steps), rel=1e-2)
    assert network.training


def test_labels_follow_their_chains_through_the_last_steps(numbers: ImageDataset) -> None:
    network = CentredEnergy(3)
    with torch.no_grad():
        network.centres.copy_(torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8))
    labels = torch.tensor([2, 0, 1, 0])
    chains = Fresh(torch.zeros(4, 1, 8, 8), labels=labels)
    potential = lambda x: network(x, labels)  # noqa: E731
    ends, _, term = run_last_steps(training(network, numbers), potential, chains, SAMPLER, section(kl_steps=2))
    assert torch.allclose(ends.mean((1, 2, 3)), (labels - 1) * (1 - (1 - RATE) ** 2), atol=1e-3)
    assert term.item() == pytest.approx(32 * (1 - RATE) ** 4 * 3 / 4, rel=1e-2)


def test_steps_with_a_graph_are_those_of_the_sampler() -> None:
    """With a clamped gradient and in a box, for the same noise."""
    torch.manual_seed(0)
    network, x = QuadraticEnergy(3.0), torch.rand(20, 1, 3, 3) * 2 - 1
    config = LangevinConfig(num_steps=4, step_size=0.3, temperature=0.1, gradient_clamp=1.5, box=1.0)
    noise = [torch.randn(20, 1, 3, 3) for _ in range(4)]
    one, other = iter(noise), iter(noise)
    expected, info = run_langevin(network, x, config, randn_like=lambda _: next(one))
    ends, lengths = followed(network, x, config, 4, lambda _: next(other))
    assert torch.allclose(ends, expected, atol=1e-6)
    assert torch.allclose(lengths / 4, info.drift_norm, rtol=1e-4)
    assert ends.requires_grad
