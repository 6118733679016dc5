"""Pictures of detection: energies and ROC curves of each set, and a few of its images."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.evaluation.detection import Response, scores_of
from models.evaluation.detection_run import DATA, OTHERS, DetectionResult, SetResult, Sets
from models.evaluation.detection_statistics import roc
from models.pixels import from_uint8
from models.training.diagnostics import image_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SETS_IN_A_ROW = 2
IMAGES_SHOWN = 12
DASHES = ("-", "--", ":")


def plot_detection(result: DetectionResult, responses: Mapping[str, Response], path: Path) -> None:
    """For each set its energies over the data's, and the ROC curve of each score, as PNG."""
    # The object interface: pyplot keeps global state and wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = math.ceil(len(result.sets) / SETS_IN_A_ROW)
    figure = Figure(figsize=(5.5 * SETS_IN_A_ROW, 2.2 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 2 * SETS_IN_A_ROW, squeeze=False).reshape(-1, 2)
    for (left, right), each in zip(panels, result.sets, strict=False):
        _histogram(left, each, result.data, responses)
        _curves(right, each, result.mean_energy, responses)
    for left, right in panels[len(result.sets) :]:
        left.set_axis_off()
        right.set_axis_off()
    figure.savefig(path, dpi=100)


def plot_images(sets: Sets, data: str, path: Path) -> None:
    """The first images of each set, a row each, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {name: images for name, images in sets.images.items() if name != OTHERS}
    figure = Figure(figsize=(8.5, 0.95 * len(shown) + 0.1), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (name, images) in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown.items(), strict=True):
        axis.imshow(np.asarray(image_grid(from_uint8(images[:IMAGES_SHOWN]), IMAGES_SHOWN)), interpolation="nearest")
        label = f"{data} (data)" if name == DATA else name
        axis.set_title(label, loc="left", fontsize="small")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    figure.savefig(path, dpi=150)


def _histogram(axis: "Axes", each: SetResult, data: str, responses: Mapping[str, Response]) -> None:
    usual, unusual = responses[DATA].energy.numpy(), responses[each.name].energy.numpy()
    bins = np.histogram_bin_edges(np.concatenate([usual, unusual]), bins=50).tolist()
    axis.hist(usual, bins=bins, density=True, color="tab:gray", alpha=0.5, label=data)
    axis.hist(unusual, bins=bins, density=True, histtype="step", color="tab:red", label=each.name)
    axis.set_title(each.name, fontsize="medium")
    axis.set_xlabel("U", fontsize="small")
    axis.set_yticks([])
    axis.legend(fontsize="x-small")


def _curves(axis: "Axes", each: SetResult, mean: float, responses: Mapping[str, Response]) -> None:
    usual, unusual = scores_of(responses[DATA], mean), scores_of(responses[each.name], mean)
    for (score, found), dash in zip(each.scores.items(), DASHES, strict=True):
        wrong, right = roc(usual[score], unusual[score])
        axis.plot(wrong.numpy(), right.numpy(), dash, label=f"{score} {found.auroc.value:.3f}")
    diagonal = torch.tensor([0.0, 1.0]).numpy()
    axis.plot(diagonal, diagonal, color="lightgray", linewidth=0.8)
    axis.set_xlabel("share of the data flagged", fontsize="small")
    axis.set_ylabel("of the set", fontsize="small")
    axis.legend(title="AUROC", fontsize="x-small", title_fontsize="x-small")
