"""Annealing against densities whose normalising constant is known on paper."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from models.errors import DataError
from models.evaluation.ais import Annealing, LogZ, Session, Walk, anneal_down, anneal_up, estimate, tune
from models.evaluation.annealing_bases import BoxBase, GaussianBase
from models.evaluation.hamiltonian import Path, hamiltonian_step
from models.gradients import Energy, energy_gradient
from models.streams import Stream

CPU = torch.device("cpu")


def path_of(energy: Energy, base: GaussianBase | BoxBase, temperature: float = 1.0) -> Path:
    return Path(partial(energy_gradient, energy, precision="float32"), temperature, base)


class Gaussian:
    """N(mean, diag(scales^2)) without its constant: log Z = sum log scale + D / 2 log 2 pi."""

    def __init__(self, size: int) -> None:
        self.mean = torch.linspace(-0.4, 0.4, size)
        self.scales = torch.linspace(0.3, 0.6, size)
        self.log_z = float(self.scales.double().log().sum()) + size / 2 * math.log(2 * math.pi)

    def __call__(self, x: Tensor) -> Tensor:
        return 0.5 * ((x - self.mean) / self.scales).square().sum(1)

    def draw(self, count: int) -> Tensor:
        return self.mean + self.scales * Stream(("exact", len(self.mean))).normal((count, len(self.mean)))


class Mixture:
    """0.3 N(-1, 0.2^2) + 0.7 N(1, 0.3^2) in each of two dimensions at once, scaled so that Z = 5."""

    log_z = math.log(5.0)

    def __call__(self, x: Tensor) -> Tensor:
        terms = [
            math.log(weight) - math.log(2 * math.pi * scale**2) - (x - mean).square().sum(1) / (2 * scale**2)
            for weight, mean, scale in ((0.3, -1.0, 0.2), (0.7, 1.0, 0.3))
        ]
        return -torch.stack(terms).logsumexp(0) - self.log_z

    def draw(self, count: int) -> Tensor:
        left = Stream(("side",)).uniform((count, 1)) < 0.3
        noise = Stream(("place",)).normal((count, 2))
        return torch.where(left, -1 + 0.2 * noise, 1 + 0.3 * noise)


def bracket(target: Gaussian | Mixture, config: Annealing, size: int) -> tuple[LogZ, LogZ]:
    path = path_of(target, config.base)
    sizes = tune(path, (size,), config, CPU)
    up = anneal_up(path, (size,), config, sizes, CPU)
    return up, anneal_down(path, target.draw(config.particles), config, sizes)


@pytest.mark.parametrize(("size", "leapfrog_steps", "rungs"), [(1, 1, 60), (8, 1, 150), (8, 4, 60), (48, 1, 400)])
def test_a_gaussian_s_constant_lies_between_the_two_ends(size: int, leapfrog_steps: int, rungs: int) -> None:
    """Both ends are within their errors of the truth, and log-weight means bracket it from both sides."""
    target = Gaussian(size)
    base = GaussianBase(scale=1.0)
    config = Annealing(base=base, particles=200, chunk=100, rungs=rungs, power=2, leapfrog_steps=leapfrog_steps)
    up, down = bracket(target, config, size)
    for end in (up, down):
        assert end.value == pytest.approx(target.log_z, abs=4 * end.error)
        assert end.error < 0.25
        assert end.effective_particles > 20
        assert end.acceptance == pytest.approx(0.7, abs=0.15)
    assert up.mean - 4 * up.mean_error < target.log_z < down.mean + 4 * down.mean_error
    assert up.mean < up.value
    assert down.value < down.mean


def test_a_mixture_s_constant_is_found_by_both_ends() -> None:
    """The base covers both modes, so neither is lost on the way."""
    target = Mixture()
    config = Annealing(base=GaussianBase(scale=1.5), particles=400, chunk=400, rungs=100, power=2, leapfrog_steps=3)
    up, down = bracket(target, config, 2)
    for end in (up, down):
        assert end.value == pytest.approx(target.log_z, abs=4 * end.error)
        assert end.error < 0.1


def test_samples_that_missed_a_mode_do_not_bound() -> None:
    """From the right mode alone, which has 0.7 of the mass, the upper end comes out below the truth."""
    target = Mixture()
    config = Annealing(base=GaussianBase(scale=0.3), particles=200, chunk=200, rungs=20, power=1, leapfrog_steps=1)
    path = path_of(lambda x: target(x + 1), config.base)  # moved so that the base lies on the right mode
    sizes = tune(path, (2,), config, CPU)
    down = anneal_down(path, 0.3 * Stream(("right",)).normal((200, 2)), config, sizes)
    assert down.value + 4 * down.error < target.log_z
    assert down.value == pytest.approx(target.log_z + math.log(0.7), abs=0.1)


def test_few_rungs_bias_both_ends_outwards() -> None:
    target = Gaussian(16)
    config = Annealing(base=GaussianBase(scale=1.0), particles=200, chunk=200, rungs=4, power=2)
    up, down = bracket(target, config, 16)
    assert up.mean + 4 * up.mean_error < target.log_z < down.mean - 4 * down.mean_error


def test_a_box_restricts_the_target_to_itself() -> None:
    """exp(-3 x_1 - ... ) on [0, 2]^3 integrates to ((1 - exp(-6)) / 3)^3; bouncing transitions keep it."""
    base = BoxBase(low=0.0, high=2.0)
    path = path_of(lambda x: 3 * x.sum(1), base)
    config = Annealing(base=base, particles=300, chunk=300, rungs=60, power=1, leapfrog_steps=3)
    sizes = tune(path, (3,), config, CPU)
    log_z = 3 * math.log((1 - math.exp(-6)) / 3)
    uniform = Stream(("box",)).uniform((300, 3))
    exact = -torch.log1p(-uniform * (1 - math.exp(-6))) / 3
    for end in (anneal_up(path, (3,), config, sizes, CPU), anneal_down(path, exact, config, sizes)):
        assert end.value == pytest.approx(log_z, abs=4 * end.error)
        assert end.error < 0.1
    with pytest.raises(DataError, match="1 of 300 samples lie outside"):
        anneal_down(path, exact.index_fill(0, torch.tensor([7]), 2.1), config, sizes)


def test_no_trajectory_is_half_a_period_for_all() -> None:
    """On N(0, I) a flight of length pi ends at -x, with the same U; of shorter ones, down to half, cos^2 is 1/2."""
    path = path_of(lambda x: 0.5 * x.square().sum(1), GaussianBase(scale=1.0))
    place = path.at(torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)))
    after, _ = hamiltonian_step(path, 1.0, place, math.pi / 8, 8, torch.Generator().manual_seed(1))
    assert float(torch.corrcoef(torch.stack([place.u, after.u]))[0, 1]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("base", "variance"), [(GaussianBase(scale=0.5), 0.1), (BoxBase(low=-0.5, high=0.5), None)], ids=["all", "box"]
)
def test_a_transition_keeps_the_density_between(base: GaussianBase | BoxBase, variance: float | None) -> None:
    """Half-way to |x|^2 / (2 T) of variance T = 1/12, large steps: rejection and walls must correct them exactly.

    With the Gaussian base the density half-way has 1 / variance = (4 + 12) / 2; in the box it is the normal one of
    twice T, cut at the walls.
    """
    path = path_of(lambda x: 0.5 * x.square().sum(1), base, temperature=1 / 12)
    generator = torch.Generator().manual_seed(0)
    place = path.at(torch.zeros(20_000, 1))
    rates = []
    for _ in range(60):
        place, probability = hamiltonian_step(path, 0.5, place, 0.45, 3, generator)
        rates.append(float(probability.mean()))
    assert min(rates) < 0.97
    if variance is None:
        scale = math.sqrt(1 / 6)
        edge = 0.5 / scale
        mass = math.erf(edge / math.sqrt(2))
        density = math.exp(-(edge**2) / 2) / math.sqrt(2 * math.pi)
        expected = scale**2 * (1 - 2 * edge * density / mass)
        assert float(place.x.abs().max()) <= 0.5
    else:
        expected = 1 / 8
    assert float(place.x.var()) == pytest.approx(expected, rel=5 * math.sqrt(2 / 20_000))


def test_flight_in_a_box_bounces_and_can_be_run_backwards() -> None:
    base = BoxBase(low=-1.0, high=1.0)
    x, velocity = torch.tensor([[0.5, -0.9, 0.0]]), torch.tensor([[1.0, -3.0, 0.2]])
    there, after = base.move(x, velocity, torch.ones(1, 1))
    torch.testing.assert_close(there, torch.tensor([[0.5, 0.1, 0.2]]))  # one bounce, two, none
    torch.testing.assert_close(after, torch.tensor([[-1.0, -3.0, 0.2]]))
    back, _ = base.move(there, -after, torch.ones(1, 1))
    torch.testing.assert_close(back, x)


def test_a_base_that_is_the_target_needs_no_walk() -> None:
    """Every weight is Z exactly."""
    base = GaussianBase(scale=0.3)
    path = path_of(lambda x: x.square().sum(1) / 0.18, base)
    config = Annealing(base=base, particles=20, chunk=7, rungs=3)
    up = anneal_up(path, (5,), config, tune(path, (5,), config, CPU), CPU)
    assert up.value == pytest.approx(2.5 * math.log(2 * math.pi * 0.09), abs=1e-4)
    assert up.effective_particles == pytest.approx(20)
    assert up.particles == 20


def test_weights_of_which_one_outweighs_all_are_worth_one() -> None:
    found = estimate(
        [Walk(log_weights=(0.0, 0.0, 0.0, 700.0), acceptance=0.5), Walk(log_weights=(0.0,), acceptance=1.0)]
    )
    assert found.value == pytest.approx(700 - math.log(5))
    assert found.effective_particles == pytest.approx(1.0)
    assert found.acceptance == pytest.approx(0.6)
    assert found.mean == pytest.approx(140.0)


def test_an_interrupted_annealing_walks_only_what_is_missing() -> None:
    """The session before finished some chunks; the sum is the same to the last bit."""
    target, base = Gaussian(4), GaussianBase(scale=1.0)
    config = Annealing(base=base, particles=20, chunk=6, rungs=10)
    path = path_of(target, base)
    sizes = tune(path, (4,), config, CPU)
    finished: dict[str, Walk] = {}
    whole = anneal_up(path, (4,), config, sizes, CPU, Session(finished=finished.__setitem__))
    assert [len(finished[name].log_weights) for name in sorted(finished)] == [6, 6, 6, 2]
    kept = {name: Walk.model_validate_json(finished[name].model_dump_json()) for name in ("up 0", "up 2")}
    again: dict[str, Walk] = {}
    count: list[int] = []
    session = Session(kept, again.__setitem__, count.append)
    assert anneal_up(path, (4,), config, sizes, CPU, session) == whole
    assert sorted(again) == ["up 1", "up 3"]
    assert sum(count) == 20 * 10
