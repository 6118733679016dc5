"""The figures, each from the evaluation's own numbers to SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from attacks_eval.evaluation import AttackResult, Certification, Curve
from attacks_eval.shares import Share
from models.pages.canvas import BLUE, DASHES, GREY, HUES, INK, MARKERS, ORANGE, RED, draw
from models.pages.wording import MINUS, percent, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCURACY = "accuracy, %"
ROW = 0.34


@dataclass(frozen=True)
class Mark:
    """A share to draw with its interval, close to the mark above when it has no label of its own."""

    label: str
    share: Share
    hue: str = BLUE


def intervals(name: str, marks: Sequence[Mark]) -> str:
    """Shares as dots with their intervals, one below the other."""
    steps_down = [1.0 if mark.label else 0.42 for mark in marks[1:]]
    positions = list(accumulate(steps_down, initial=0.0))

    def paint(axes: "Axes") -> None:
        for position, mark in zip(positions, marks, strict=True):
            low, value, high = (100 * each for each in (mark.share.low, mark.share.accuracy, mark.share.high))
            axes.plot([low, high], [position, position], color=mark.hue, linewidth=4, alpha=0.35)
            axes.plot(value, position, "o", color=mark.hue, markersize=7)
            axes.annotate(percent(mark.share.accuracy), (max(high, value), position), (5, 0), **BESIDE)
        labelled = [(position, mark.label) for position, mark in zip(positions, marks, strict=True) if mark.label]
        _rows(axes, [label for _, label in labelled], [position for position, _ in labelled], positions[-1])
        axes.set_xlim(0, 112)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel("images right, %, with 95 % intervals")

    return draw(name, ROW * (positions[-1] + 1) + 0.75, paint)


def waterfall(name: str, total: int, clean: int, attacks: Sequence[AttackResult]) -> str:
    """What each attack in turn breaks of what the attacks above it left."""
    labels = ["clean", *(short(attack.title) for attack in attacks)]
    left = [clean, *(attack.left for attack in attacks)]
    first = [total - clean, *(attack.first for attack in attacks)]

    def paint(axes: "Axes") -> None:
        for position, (rest, broken) in enumerate(zip(left, first, strict=True)):
            axes.barh(position, rest, color=BLUE, height=0.66)
            axes.barh(position, broken, left=rest, color=RED if position else GREY, height=0.66)
            text = f"{rest} left, {MINUS}{broken}" if position else f"{rest} right, {broken} wrong"
            axes.annotate(text, (rest + broken, position), (5, 0), **BESIDE)
        for position, rest in enumerate(left[:-1]):
            axes.plot([rest, rest], [position, position + 1], color=INK, linewidth=0.8, linestyle=":")
        _rows(axes, labels, range(len(labels)), len(labels) - 1)
        axes.set_xlim(0, total * 1.3)
        axes.set_xlabel(f"images, of {total}")

    return draw(name, ROW * len(labels) + 0.75, paint)


def steps(attack: AttackResult) -> tuple[list[int], list[int]]:
    """Questions at which images broke, ascending from 0, and how many images were left after each."""
    counts: dict[int, int] = {}
    for question in attack.broken_at:
        if question is not None:
            counts[question] = counts.get(question, 0) + 1
    asked, left = [0], [attack.attacked]
    for question in sorted(counts):
        asked.append(question)
        left.append(left[-1] - counts[question])
    return [*asked, max(attack.queries, asked[-1])], [*left, left[-1]]


def questions(name: str, total: int, attacks: Sequence[AttackResult]) -> str:
    """Accuracy over all images against the questions that each attack has asked."""

    def paint(axes: "Axes") -> None:
        longest = 1
        for index, attack in enumerate(attacks):
            asked, left = steps(attack)
            longest = max(longest, asked[-1])
            style: dict[str, Any] = {
                "color": HUES[index % len(HUES)],
                "linestyle": DASHES[index // len(HUES) % len(DASHES)],
            }
            shown = [max(question, 0.7) for question in asked]
            heights = [100 * count / total for count in left]
            axes.step(shown, heights, where="post", label=short(attack.title), **style)
            axes.plot(shown[-1], heights[-1], MARKERS[index % len(MARKERS)], **style)
        _log_axis(axes, [10.0**power for power in range(math.ceil(math.log10(longest)) + 1)])
        axes.set_xlim(0.7, longest * 1.3)
        _accuracy_axis(axes)
        axes.set_xlabel("questions asked about each image")

    return draw(name, 3.4 + 0.1 * len(attacks), paint, legend=True)


def curve(name: str, drawn: Curve) -> str:
    """Accuracies with their intervals, and the time of an answer on a second axis where it was measured."""
    xs = [point.x for point in drawn.points]
    timed = [(point.x, point.seconds_per_image) for point in drawn.points if point.seconds_per_image is not None]

    def paint(axes: "Axes") -> None:
        for index, key in enumerate(keys(drawn)):
            found = [(point.x, point.accuracies[key]) for point in drawn.points if key in point.accuracies]
            _band(axes, [x for x, _ in found], [each for _, each in found], index, key)
        _spread(axes, xs)
        _accuracy_axis(axes)
        axes.set_xlabel(drawn.x_label)
        if timed:
            second = axes.twinx()
            second.plot(*zip(*timed, strict=True), color=GREY, linestyle=":", marker="x", label="seconds an image")
            second.set_ylim(bottom=0)
            second.set_ylabel("seconds an image")
            second.spines["right"].set_visible(True)
            second.grid(False)

    return draw(name, 3.3, paint, legend=True)


def keys(drawn: Curve) -> list[str]:
    """The names of a curve's accuracies, worst first."""
    lowest: dict[str, float] = {}
    for point in drawn.points:
        for key, share in point.accuracies.items():
            lowest[key] = min(share.accuracy, lowest.get(key, 1.0))
    return sorted(lowest, key=lambda key: (lowest[key], key))


def margins(name: str, found: dict[str, list[float]]) -> str:
    """Histograms of margins; left of zero the answer is wrong."""
    filled = {key: values for key, values in found.items() if values}
    everything = np.concatenate([np.asarray(values) for values in filled.values()])
    edges = np.linspace(float(everything.min()) - 1e-6, float(everything.max()) + 1e-6, 31).tolist()

    def paint(axes: "Axes") -> None:
        for index, (key, values) in enumerate(filled.items()):
            hue = BLUE if key == "clean" else (RED, ORANGE, *HUES)[index % 8 - 1]
            axes.hist(values, bins=edges, color=hue, alpha=0.3)
            axes.hist(values, bins=edges, histtype="step", color=hue, linestyle=DASHES[index % 4], linewidth=1.6)
            axes.plot([], [], color=hue, linestyle=DASHES[index % 4], label=key)
        axes.axvline(0.0, color=INK, linewidth=1.2)
        axes.set_xlabel("margin: true logit minus the best other one (left of 0: wrong)")
        axes.set_ylabel("images")

    return draw(name, 3.0, paint, legend=True)


def certified(name: str, certification: Certification) -> str:
    """Certified accuracy against the radius, and the radius that these draws can not exceed."""

    def paint(axes: "Axes") -> None:
        radii = [point.radius for point in certification.points]
        _band(axes, radii, [point.accuracy for point in certification.points], 0, "certified")
        axes.axvline(certification.largest_radius, color=GREY, linestyle=":", label="the most these draws can certify")
        _accuracy_axis(axes)
        axes.set_xlabel("L2 radius, in [0, 1] pixel units")
        axes.set_ylabel("certified accuracy, %")

    return draw(name, 3.2, paint, legend=True)


BESIDE: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "va": "center"}


def _rows(axes: "Axes", labels: Sequence[str], positions: Sequence[float], last: float) -> None:
    """Labels beside their rows, the first on top."""
    axes.set_yticks(positions, labels)
    axes.set_ylim(last + 0.6, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")


def _band(axes: "Axes", xs: Sequence[float], shares: Sequence[Share], index: int, label: str) -> None:
    """A line with its interval as a band."""
    hue = (RED, BLUE, ORANGE, *HUES[2:])[index % 7]
    values = [100 * share.accuracy for share in shares]
    line, marker = DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)]
    axes.plot(xs, values, color=hue, linestyle=line, marker=marker, label=label)
    low, high = [100 * share.low for share in shares], [100 * share.high for share in shares]
    axes.fill_between(xs, low, high, color=hue, alpha=0.15, linewidth=0)


def _accuracy_axis(axes: "Axes") -> None:
    axes.set_ylim(0, 102)
    axes.set_ylabel(ACCURACY)


def _log_axis(axes: "Axes", ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])


def _spread(axes: "Axes", xs: Sequence[float]) -> None:
    """A tick a value; a logarithmic axis for values that span a decade, linear below the smallest positive one."""
    positive = [x for x in xs if x > 0]
    if len(positive) > 2 and max(positive) >= 10 * min(positive):
        axes.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
    axes.minorticks_off()
    axes.set_xticks(xs, [f"{x:g}" for x in xs])
