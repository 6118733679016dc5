"""Pictures of a run: image grids, and whether learning is stable.

A healthy run's energy gap swings around zero. The two series of EBM Life Cycle (arXiv 2205.12243, section 3): the
energy gap d, scaled to unit mean square but not centred, and the drift length r, standardised.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from models.errors import DataError
from models.pixels import to_uint8

MAX_LAG = 15
WINDOW = 5000

Series = npt.NDArray[np.float64]


def image_grid(images: Tensor, columns: int = 8, zoom: int = 2) -> Image.Image:
    """[-1, 1] images [N, C, H, W], C 1 or 3, as one picture with a one-pixel gap, each pixel `zoom` wide."""
    pixels = to_uint8(images.detach().cpu())
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    count, _, height, width = pixels.shape
    rows = -(-count // columns)
    sheet = torch.full((3, rows * (height + 1) + 1, columns * (width + 1) + 1), 255, dtype=torch.uint8)
    for index in range(count):
        top, left = 1 + index // columns * (height + 1), 1 + index % columns * (width + 1)
        sheet[:, top : top + height, left : left + width] = pixels[index]
    picture = Image.fromarray(sheet.permute(1, 2, 0).numpy())
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)


def save_grid(images: Tensor, path: Path, columns: int = 8, beside: Tensor | None = None) -> None:
    """Write `image_grid` of the images as PNG, small ones enlarged; raises DataError when it can not be written.

    Args:
        beside: as many other images, for a second grid to the right.
    """
    zoom = 2 if images.shape[3] <= 64 else 1
    picture = image_grid(images, columns, zoom)
    if beside is not None:
        left, gap = picture, 8 * zoom
        picture = Image.new("RGB", (2 * left.width + gap, left.height), "white")
        picture.paste(left, (0, 0))
        picture.paste(image_grid(beside, columns, zoom), (left.width + gap, 0))
    try:
        picture.save(path, format="PNG")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def correlation(a: Series, b: Series, max_lag: int = MAX_LAG) -> Series:
    """mean of a[t] * b[t + lag] over t, for lag = -max_lag .. max_lag."""
    values = []
    for lag in range(-max_lag, max_lag + 1):
        early, late = (a, b) if lag >= 0 else (b, a)
        shift = abs(lag)
        values.append(float(np.mean(early[: len(early) - shift] * late[shift:])))
    return np.array(values)


def scaled(lines: Sequence[dict[str, float]]) -> tuple[Series, Series]:
    """The two series of logged updates: the energy gap over its root mean square, the drift length standardised."""
    gap = np.array([line["energy_gap"] for line in lines])
    drift = np.array([line["drift_norm"] for line in lines])
    d = gap / max(float(np.sqrt(np.mean(gap**2))), 1e-12)
    return d, (drift - drift.mean()) / max(float(drift.std()), 1e-12)


def plot_diagnostics(metrics: Sequence[dict[str, float]], unit: float, path: Path) -> None:
    """Traces, auto- and cross-correlations of energy gap and drift length over the last 5,000 updates, as PNG.

    Args:
        unit: what the logged energies are divided by.
    """
    lines = [line for line in metrics if "energy_gap" in line][-WINDOW:]
    if len(lines) <= 2 * MAX_LAG:
        return
    # The object interface: pyplot keeps global state and wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    updates = np.array([line["update"] for line in lines])
    gap = np.array([line["energy_gap"] for line in lines])
    drift = np.array([line["drift_norm"] for line in lines])
    d, r = scaled(lines)
    lags = np.arange(-MAX_LAG, MAX_LAG + 1)

    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    axes[0, 0].plot(updates, gap, linewidth=0.6)
    axes[0, 0].axhline(0.0, color="black", linewidth=0.8)
    axes[0, 0].set_title(f"energy gap / {unit:g}, mean {gap.mean():.3g}")
    axes[1, 0].plot(updates, drift, linewidth=0.6, color="tab:orange")
    axes[1, 0].set_title(f"mean drift length, {drift.mean():.3g}")
    panels = (
        (axes[0, 1], correlation(d, d), "autocorrelation of the energy gap"),
        (axes[0, 2], correlation(r, r), "autocorrelation of the drift length"),
        (axes[1, 1], correlation(d, r), "gap at t with drift at t + lag"),
    )
    for axis, values, title in panels:
        axis.stem(lags, values, basefmt=" ")
        axis.axhline(0.0, color="black", linewidth=0.8)
        axis.set_title(title)
    axes[1, 2].hist(gap, bins=40)
    axes[1, 2].set_title("distribution of the energy gap")
    for axis in axes[:, 0]:
        axis.set_xlabel("update")
    figure.savefig(path, dpi=100)
