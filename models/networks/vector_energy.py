"""An energy of vectors: points of a plane, trajectories laid flat, states of a robot."""

from torch import Tensor, nn

from models.networks.conditioning import Conditioned, check_labels
from models.networks.energy import make_activation


class VectorEnergy(nn.Module):
    """Linear maps with an activation between them: [B, D] (and y [B]) -> [B].

    Args:
        size: D.
        widths: of the hidden layers.
        classes: of the labels that it reads; each has its own input bias and gain in every hidden layer, as IGEBM's
            convolutions have (arXiv 1903.08689). 0 is an energy of x alone.
    """

    def __init__(
        self,
        size: int,
        widths: list[int],
        classes: int = 0,
        activation: str = "silu",
        slope: float = 0.2,
        smoothing: float = 0.01,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.activation = make_activation(activation, slope, smoothing)
        layers, inputs = [], size
        for width in widths:
            layers.append(Conditioned(nn.Linear(inputs, width), inputs, width, classes, gain=1.0))
            inputs = width
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(inputs, 1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(x, labels, self.classes)
        for layer in self.layers:
            x = self.activation(layer(x, labels))
        energy: Tensor = self.head(x)
        return energy.squeeze(1)
