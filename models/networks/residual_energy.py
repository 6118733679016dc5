"""The residual energies of Implicit Generation and Generalization in EBMs (IGEBM, arXiv 1903.08689) and its code.

Their smoothness comes from spectral norm (Miyato et al. 2018) on every convolution; batch norm would tie an image's
energy to its batch. A second convolution starts at nearly nothing, so that a block begins as its shortcut.
"""

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm as normalise_spectrum

from models.networks.conditioning import Conditioned, check_labels
from models.networks.energy import make_activation
from models.pixels import to_unit

FIRST_GAIN = 1e-3
"""Of each second convolution. IGEBM starts its weight at 1e-10 and normalises only what has grown beyond norm 1."""


class NormalisedBlock(nn.Module):
    """a(pool(shortcut(x) + gain[y] * conv2(d(a(conv1(x + shift1[y]))) + shift2[y])))), a an activation, d a dropout.

    All convolutions are 3x3 without bias, the shortcut too where it changes the number of channels; pooling, where
    `down` halves the side, is the mean of 2x2 pixels.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        down: bool,
        classes: int,
        dropout: float,
        activation: nn.Module,
        spectral_norm: bool,
    ) -> None:
        super().__init__()
        self.down, self.activation, self.dropout = down, activation, nn.Dropout(dropout)
        first, second = (_convolution(each, outputs, spectral_norm) for each in (inputs, outputs))
        self.conv1 = Conditioned(first, inputs, outputs, classes)
        self.conv2 = Conditioned(second, outputs, outputs, classes, FIRST_GAIN)
        self.shortcut = _convolution(inputs, outputs, spectral_norm) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        hidden = self.activation(self.dropout(self.conv1(x, labels)))
        whole = self.shortcut(x) + self.conv2(hidden, labels)
        out: Tensor = self.activation(functional.avg_pool2d(whole, 2) if self.down else whole)
        return out


class ResidualEnergy(nn.Module):
    """A stem, residual blocks, the sum over pixels, one linear map: [B, C, S, S] in [-1, 1] (and y [B]) -> [B].

    It computes with pixels in [0, 1], as IGEBM does: under spectral norm the scale of what a network reads is the
    scale of its gradients. Leaky ReLUs have slope 0.2; the published networks, all with 3x3 kernels, are
    ResNet32 (stem 128; 128 halving, 128, 256 halving, 256, 256 halving, 256: 5.3 M parameters), ResNet32Large,
    Larger and Wider (three stages of three or five blocks), and ResNet128.

    Args:
        stem: channels after the first convolution.
        blocks: (output channels, halve the side) of each residual block.
        classes: of the labels that it reads; each has its own shifts and gains. 0 is an energy of images alone.
        dropout: between a block's convolutions while the network learns; chains run without. IGEBM's large networks
            have 0.5, in their chains too.
        spectral_norm: divide each convolution's weight by its largest singular value, estimated by one power iteration
            a training pass; in evaluation mode the estimate stands still.
    """

    def __init__(
        self,
        channels: int,
        stem: int,
        blocks: list[tuple[int, bool]],
        classes: int = 0,
        dropout: float = 0.0,
        spectral_norm: bool = True,
        activation: str = "leaky",
        slope: float = 0.2,
        smoothing: float = 0.01,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.stem = _convolution(channels, stem, spectral_norm)
        self.activation = make_activation(activation, slope, smoothing)
        layers, inputs = [], stem
        for outputs, down in blocks:
            act = make_activation(activation, slope, smoothing)
            layers.append(NormalisedBlock(inputs, outputs, down, classes, dropout, act, spectral_norm))
            inputs = outputs
        self.blocks = nn.ModuleList(layers)
        self.head = nn.Linear(inputs, 1)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(x, labels, self.classes)
        hidden = self.activation(self.stem(to_unit(x)))
        for block in self.blocks:
            hidden = block(hidden, labels)
        energy: Tensor = self.head(hidden.sum((2, 3)))
        return energy.squeeze(1)


def _convolution(inputs: int, outputs: int, spectral_norm: bool) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
    return normalise_spectrum(convolution) if spectral_norm else convolution
