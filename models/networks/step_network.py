"""A fully connected predictor of the next state."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalise_spectrum


class StepNetwork(nn.Module):
    """[B, inputs] -> [B, outputs]: linear maps with SiLU between them.

    Args:
        scale: what the input is multiplied by first, as in `VectorEnergy`.
        spectral_norm: of every map but the last, so that what it predicts many times over does not grow.
    """

    def __init__(
        self, inputs: int, widths: list[int], outputs: int, scale: float = 1.0, spectral_norm: bool = False
    ) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = []
        for before, after in pairwise([inputs, *widths]):
            linear = nn.Linear(before, after)
            layers += [normalise_spectrum(linear) if spectral_norm else linear, nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(self.scale * x)
        return out
