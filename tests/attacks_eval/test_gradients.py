"""Gradients through a chain: against closed forms, plain autograd and finite differences."""

import pytest
import torch
from torch import Tensor, nn

from attacks_eval.defence import Defence
from attacks_eval.errors import GradientError, QuestionError
from attacks_eval.gradients import BPDA, FULL, SMOOTH, GradMode, hessian_vanishes, pull_back_exactly
from attacks_eval.losses import margins
from attacks_eval.purifiers import AutogradPurifier, LangevinPurifier, check_gradients
from models.bundle import Bundle
from models.data import ImageDataset
from models.langevin import run_langevin
from models.networks import build_network
from models.noise import Noise
from models.pixels import Normalisation, from_uint8, to_unit
from models.purifier import Preset, PurifiedClassifier
from models.streams import ChainNoise, Stream

PRESET = Preset(num_steps=7, step_size=0.05, temperature=0.01, replicates=2)
PIXELS = 3 * 8 * 8


class Quadratic(nn.Module):
    """U(x) = x A x / 2 with a fixed positive A."""

    def __init__(self) -> None:
        super().__init__()
        half = torch.randn(PIXELS, PIXELS, generator=torch.Generator().manual_seed(0)) / PIXELS**0.5
        self.register_buffer("a", half @ half.T)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return 0.5 * (flat @ self.a * flat).sum(1)  # type: ignore[operator]


class Linear(nn.Module):
    """Logits (0, w z)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", torch.randn(PIXELS, generator=torch.Generator().manual_seed(1)))

    def forward(self, z: Tensor) -> Tensor:
        score = z.flatten(1) @ self.w  # type: ignore[operator]
        return torch.stack([torch.zeros_like(score), score], 1)


def defence_with(energy: nn.Module, preset: Preset = PRESET) -> Defence:
    # The identity normalisation of the classifier's input: (unit - 1/2) / (1/2) = z.
    plain = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Defence.of(PurifiedClassifier(energy, Linear(), plain, preset))


def light(activation: str) -> nn.Module:
    torch.manual_seed(3)
    arguments = {"channels": 3, "image_size": 8, "width": 8, "activation": activation}
    network = build_network("light", arguments)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def gradient(defence: Defence, images: Tensor, mode: GradMode, replicates: int = 1) -> Tensor:
    streams = [Stream(("test", row)) for row in range(len(images))]
    labels = torch.zeros(len(images), dtype=torch.long)
    return defence.attack_gradient(images, labels, streams, replicates, mode, "margin")[2]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 0.5 + 0.25


def test_on_a_quadratic_energy_full_is_the_closed_form(images: Tensor) -> None:
    """The margin loss is w z_K, and dz_K / dx = (I - c A)^K, whatever the noise; pixels are 2 x - 1."""
    defence = defence_with(Quadratic())
    power = torch.linalg.matrix_power(torch.eye(PIXELS) - PRESET.drift_rate * Quadratic().a, PRESET.num_steps)  # type: ignore[operator]
    expected = 2 * (power.T @ Linear().w).view(3, 8, 8)  # type: ignore[operator]
    assert torch.allclose(gradient(defence, images, FULL), expected.expand(3, -1, -1, -1), rtol=1e-4, atol=1e-4)
    identity = 2 * Linear().w.view(3, 8, 8)  # type: ignore[operator]
    assert torch.allclose(gradient(defence, images, BPDA), identity.expand(3, -1, -1, -1), atol=1e-5)


def test_on_a_quadratic_energy_the_mean_purified_image_is_the_closed_form(images: Tensor) -> None:
    """E[z_K] = (I - c A)^K x, and the mean over R replicates approaches it as 1 / sqrt(R)."""
    defence = defence_with(Quadratic())
    power = torch.linalg.matrix_power(torch.eye(PIXELS) - PRESET.drift_rate * Quadratic().a, PRESET.num_steps)  # type: ignore[operator]
    expected = ((2 * images - 1).flatten(1) @ power.T) @ Linear().w  # type: ignore[operator]
    streams = [Stream(("mean", row)) for row in range(3)]
    scores = defence.replicate_logits(images, streams, 0, 4096)[..., 1]
    spread = scores.std(0)
    for replicates in (64, 4096):
        error = (scores[:replicates].mean(0) - expected).abs()
        assert bool((error < 4 * spread / replicates**0.5).all())


def test_full_is_plain_autograd_on_a_smooth_energy(images: Tensor) -> None:
    energy = light("silu")
    defence = defence_with(energy)
    x = images.clone().requires_grad_(True)
    z, noise = 2 * x - 1, ChainNoise([Stream(("test", row)).child("replicate", 0) for row in range(3)])
    for step in range(PRESET.num_steps):
        (drift,) = torch.autograd.grad(energy(z).sum(), z, create_graph=True)
        z = z - PRESET.drift_rate * drift + PRESET.step_size * noise.at(step, z)
    (expected,) = torch.autograd.grad(Linear()(z)[:, 1].sum(), x)
    found = gradient(defence, images, FULL)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    # And it is not the identity's, so the comparison could fail.
    assert float((found - gradient(defence, images, BPDA)).norm() / found.norm()) > 0.05


def test_a_replay_along_other_states_is_refused(images: Tensor) -> None:
    energy = light("silu")
    noise = ChainNoise([Stream(("replay", row)) for row in range(3)])
    states = [2 * images - 1]
    purifier = PurifiedClassifier(energy, Linear(), Normalisation(mean=(0.5,), std=(0.5,)), PRESET)
    purifier.purify(states[0], randn_like=noise.sequence(), callback=lambda step, state, info: states.append(state))
    pull_back_exactly(energy, states, noise, PRESET, None, torch.ones_like(images))
    wrong = [*states[:3], states[3] + 1e-6, *states[4:]]
    with pytest.raises(GradientError, match="step 3"):
        pull_back_exactly(energy, wrong, noise, PRESET, None, torch.ones_like(images))
    other = ChainNoise([Stream(("other", row)) for row in range(3)])
    with pytest.raises(GradientError, match="another state"):
        pull_back_exactly(energy, states, other, PRESET, None, torch.ones_like(images))


@pytest.mark.parametrize("kind", ["full", "smooth"])
def test_a_chain_that_settled_is_pulled_back_through_its_own_steps_alone(images: Tensor, kind: str) -> None:
    """As a chain of just so many steps, which is what it was."""
    settling = PRESET.model_copy(update={"num_steps": 90, "settle": 2.0})
    energy, mode = Quadratic(), GradMode.model_validate(kind)
    x = (2 * images - 1) * torch.tensor([0.05, 1.0, 20.0]).view(3, 1, 1, 1)
    noise = ChainNoise([Stream(("settled", row)) for row in range(3)])
    purifier = PurifiedClassifier(energy, Linear(), Normalisation(mean=(0.5,), std=(0.5,)), PRESET)
    counts = run_langevin(energy, x, settling, randn_like=noise.sequence())[1].num_steps.tolist()
    assert counts[0] < counts[-1]
    purified, pull_back = LangevinPurifier(purifier, settling).record(x, noise, mode)
    pulled = pull_back(torch.ones_like(x))
    for row, steps in enumerate(counts):
        fixed = LangevinPurifier(purifier, PRESET.model_copy(update={"num_steps": steps}))
        alone, pull_back_alone = fixed.record(x, noise, mode)
        assert torch.equal(purified[row], alone[row])
        torch.testing.assert_close(pulled[row], pull_back_alone(torch.ones_like(x))[row])
    assert not torch.allclose(pulled[0], pulled[-1])


def test_through_a_piecewise_linear_energy_full_is_bpda_exactly(images: Tensor) -> None:
    defence = defence_with(light("leaky"))
    assert isinstance(defence.purifier, LangevinPurifier)
    assert defence.purifier.piecewise_linear(2 * images - 1)
    assert torch.equal(gradient(defence, images, FULL), gradient(defence, images, BPDA))
    assert not hessian_vanishes(light("silu"), 2 * images - 1)


def test_the_smooth_twin_predicts_the_shipped_purifier_better_than_the_identity(
    digits_bundle: Bundle, digits_test: ImageDataset
) -> None:
    """Against the purifier's own response, noise held: the change of the margin along random sign directions."""
    defence = Defence.of(digits_bundle.defence, digits_bundle.manifest.presets["fast"])
    images, labels = to_unit(from_uint8(digits_test.images[:8])).clamp(0.1, 0.9), digits_test.labels[:8]
    streams = [Stream(("response", row)) for row in range(8)]
    errors = {BPDA: 0.0, SMOOTH: 0.0}
    generator = torch.Generator().manual_seed(5)
    for _ in range(6):
        change = 20 / 255 * torch.randn(images.shape, generator=generator).sign()
        up, down = (
            margins(defence.replicate_logits(x, streams, 0, 8).mean(0), labels)
            for x in (images + change, images - change)
        )
        for mode in errors:
            gradients = defence.attack_gradient(images, labels, streams, 8, mode, "margin")[2]
            predicted = -(gradients * change).flatten(1).sum(1)
            errors[mode] += float((predicted - (up - down) / 2).square().sum())
    assert errors[SMOOTH] < 0.7 * errors[BPDA]


def test_truncated_through_every_step_is_full_and_through_none_of_them_tends_to_bpda(images: Tensor) -> None:
    defence = defence_with(light("silu"))
    modes = {name: GradMode.model_validate(name) for name in ("truncated:7", "truncated:70", "truncated:1")}
    full = gradient(defence, images, FULL)
    assert torch.equal(gradient(defence, images, modes["truncated:7"]), full)
    assert torch.equal(gradient(defence, images, modes["truncated:70"]), full)
    last = gradient(defence, images, modes["truncated:1"])
    bpda = gradient(defence, images, BPDA)
    assert 0 < float((last - bpda).norm()) < float((full - bpda).norm())


def test_smooth_on_a_smooth_energy_is_full_and_a_stride_comes_near(images: Tensor) -> None:
    preset = PRESET.model_copy(update={"num_steps": 12})
    defence = defence_with(light("silu"), preset)
    full = gradient(defence, images, FULL)
    assert torch.equal(gradient(defence, images, SMOOTH), full)
    strided = gradient(defence, images, GradMode.model_validate("smooth/2"))
    cosine = torch.cosine_similarity(strided.flatten(1), full.flatten(1))
    bpda = torch.cosine_similarity(gradient(defence, images, BPDA).flatten(1), full.flatten(1))
    assert bool((cosine > 0.98).all())
    assert bool((cosine > bpda).all())


@pytest.mark.parametrize("name", ["bpda", "full", "smooth", "truncated:8", "smooth:8", "smooth/4", "smooth:8/2"])
def test_modes_read_and_write_their_names(name: str) -> None:
    mode = GradMode.model_validate(name)
    assert str(mode) == name
    assert mode.model_dump() == name
    assert GradMode.model_validate(mode.model_dump()) == mode


@pytest.mark.parametrize("name", ["", "exact", "bpda:3", "full:3", "truncated", "truncated:0", "smooth:", "full/2"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(QuestionError, match="known: bpda"):
        GradMode.model_validate(name)


def silu_step(create_graph: bool) -> AutogradPurifier:
    """One gradient step on a smooth energy, as a user might write it."""
    energy = light("silu")

    def purify(x: Tensor, noise: Noise) -> Tensor:
        with torch.enable_grad():
            leaf = x if x.requires_grad else x.detach().requires_grad_(True)
            (drift,) = torch.autograd.grad(energy(leaf).sum(), leaf, create_graph=create_graph)
        return x - 0.2 * drift + 0.01 * noise(x)

    return AutogradPurifier(purify)


def test_a_purifier_that_drops_its_gradient_silently_is_refused(images: Tensor) -> None:
    check_gradients(silu_step(create_graph=True), 2 * images - 1)
    with pytest.raises(GradientError, match="create_graph"):
        check_gradients(silu_step(create_graph=False), 2 * images - 1)
    scaled = silu_step(create_graph=False)
    with pytest.raises(GradientError, match="drops gradients"):
        check_gradients(AutogradPurifier(lambda x, noise: 0.9 * scaled.function(x, noise)), 2 * images - 1)
    with pytest.raises(GradientError, match="detaches"):
        check_gradients(AutogradPurifier(lambda x, noise: x.detach() * 0.5), 2 * images - 1)


def test_the_identity_is_not_refused(images: Tensor) -> None:
    check_gradients(AutogradPurifier(lambda x, noise: x + 0.1 * noise(x)), 2 * images - 1)


def test_a_smooth_mode_needs_a_chain(images: Tensor) -> None:
    defence = Defence(AutogradPurifier(lambda x, noise: x), Linear())
    with pytest.raises(QuestionError, match="needs a Langevin chain"):
        gradient(defence, images, SMOOTH)
