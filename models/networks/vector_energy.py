"""An energy of vectors: points of a plane, trajectories laid flat, states of a robot."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalise_spectrum

from models.networks.conditioning import Conditioned, check_labels
from models.networks.energy import make_activation


class VectorEnergy(nn.Module):
    """Linear maps with an activation between them: [B, D], or [B, ...] laid flat (and y [B]) -> [B].

    Args:
        size: D.
        widths: of the hidden layers.
        scale: what x is multiplied by first: where data is small beside 1, an energy begins as a plane, and is slow to
            learn a curvature.
        classes: of the labels that it reads; each has its own input bias and gain in every hidden layer, as IGEBM's
            convolutions have (arXiv 1903.08689). 0 is an energy of x alone.
        gain: where every gain starts.
        fixed: the linear maps stay as they were drawn, and shifts and gains alone learn: what is learned of one class
            then leaves the energies of all others as they are.
        spectral_norm: divide each hidden layer's weight by its largest singular value, as `ResidualEnergy` does: steep
            energies, whose chains find no way down, are then out of reach.
    """

    def __init__(
        self,
        size: int,
        widths: list[int],
        classes: int = 0,
        scale: float = 1.0,
        gain: float = 1.0,
        fixed: bool = False,
        spectral_norm: bool = False,
        activation: str = "silu",
        slope: float = 0.2,
        smoothing: float = 0.01,
    ) -> None:
        super().__init__()
        self.classes, self.scale = classes, scale
        self.activation = make_activation(activation, slope, smoothing)
        layers, inputs = [], size
        for width in widths:
            linear: nn.Module = nn.Linear(inputs, width)
            if spectral_norm:
                linear = normalise_spectrum(linear)
            layers.append(Conditioned(linear, inputs, width, classes, float(gain)))
            inputs = width
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(inputs, 1)
        if fixed:
            if spectral_norm:
                raise ValueError("fixed: maps that stand still have no spectrum to normalise; expected one of the two")
            if not classes:
                raise ValueError("fixed: an energy without classes would have nothing to learn; expected classes > 0")
            for linear in [*(layer.layer for layer in layers), self.head]:
                _fix(linear)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(x, labels, self.classes)
        x = self.scale * x.flatten(1)
        for layer in self.layers:
            x = self.activation(layer(x, labels))
        energy: Tensor = self.head(x)
        return energy.squeeze(1)


def _fix(module: nn.Module) -> None:
    """Make buffers of the module's parameters: saved and moved with it, and learned by nothing."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        delattr(module, name)
        module.register_buffer(name, parameter.detach())
