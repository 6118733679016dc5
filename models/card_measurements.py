"""What was measured of a bundle, as its model card shows it."""

from collections.abc import Sequence
from typing import Any

# Of a robustness result, what a card and the service's console show; the whole stands beside its report.
SHOWN = (
    *(
        "kind",
        "weights",
        "preset_name",
        "preset",
        "data",
        "first",
        "images",
        "threat",
        "plan_name",
        "command",
        "commit",
    ),
    *("clean", "worst_case", "worst_case_rounded", "gradient_note", "certification"),
    *("bare", "curves", "indicators", "checklist", "notes"),
)
USUAL_RADII = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Radii that the literature tabulates, L2 in [0, 1] pixel units."""
SHOWN_OF_ATTACK = ("name", "title", "knowledge", "on", "attacked", "left", "fixed_randomness")


def for_the_card(result: dict[str, Any]) -> dict[str, Any]:
    """A result of `attacks_eval` as a manifest holds it: robustness results without their per-image records."""
    if result["kind"] != "robustness":
        return result
    attacks = [
        {key: attack[key] for key in SHOWN_OF_ATTACK} | {"mean_logit": attack["statistics"]["mean_logit"]}
        for attack in result["attacks"]
    ]
    return {key: result[key] for key in SHOWN} | {"attacks": attacks}


def robustness(measured: dict[str, Any]) -> str:
    """The worst case first, then every attack that was run on all images, strongest first."""
    threat, first = measured["threat"], measured["first"]
    norm = "L-infinity" if threat["norm"] == "linf" else "L2"
    head = (
        f"Preset {measured['preset_name']}, test images {first:,} to {first + measured['images'] - 1:,}, {norm} "
        f"{threat['budget']:g}/255, Wilson 95 % intervals. An image counts as held when the mean logits over up to "
        "128 fresh replicates are right."
    )
    rows = [["**worst case of all attacks**", f"**{_percent(measured['worst_case'])}**"]]
    rows += [["the same images rounded to 256 levels, judged afresh", _percent(measured["worst_case_rounded"])]]
    counted = [a for a in measured["attacks"] if a["on"] == "all" and not a["fixed_randomness"]]
    counted.sort(key=lambda attack: float(attack["mean_logit"]["accuracy"]))
    rows += [[f"{attack['title']} ({attack['knowledge']})", _percent(attack["mean_logit"])] for attack in counted]
    rows += [["clean", _percent(measured["clean"]["mean_logit"])]]
    others = [
        f"{attack['title']}: broke {attack['attacked'] - attack['mean_logit']['correct']} of the {attack['attacked']} "
        "images that were left"
        for attack in measured["attacks"]
        if attack["on"] == "survivors"
    ]
    parts = [head, table(["attack", "held"], rows), *[f"- {line}." for line in others], measured["gradient_note"]]
    if measured["certification"]:
        parts.append(_certified(measured["certification"]))
    return "\n\n".join([*parts, f"Remade by `{measured['command']}` (commit {measured['commit'][:12]})."])


def _certified(found: dict[str, Any]) -> str:
    points = [point for point in found["points"] if point["accuracy"]["correct"]]
    usual = [point for point in points if point["radius"] in USUAL_RADII]
    few = [points[0], points[len(points) // 2], points[-1]] if points else []
    shown = usual if len(usual) > 1 else few
    radii = "; ".join(f"L2 {point['radius']:.3f}: {_percent(point['accuracy'])}" for point in shown)
    return (
        f"Certified (randomised smoothing, sigma {found['sigma']:g}, {found['estimation']} draws, confidence "
        f"{100 * (1 - found['alpha']):g} %, {found['images']} images; of the smoothed classifier, not of the served "
        f"one): {radii or 'nothing'}."
    )


def baseline(measured: dict[str, Any]) -> str:
    """Clean and transfer accuracy, bare and purified, of each preset."""
    threat, first = measured["threat"], measured["first"]
    head = (
        f"Test images {first:,} to {first + measured['images'] - 1:,}. Attack: PGD-{threat['steps']}, L-infinity "
        f"{threat['budget']:g}/255, on the bare classifier. Wilson 95 % intervals. Transfer: the defence's accuracy on "
        "those same attacked images."
    )
    rows = [["bare classifier", _percent(measured["bare"]["attacked"]), _percent(measured["bare"]["clean"])]]
    rows += [
        [f"purified, {name}", _percent(row["transfer"]), _percent(row["clean"])]
        for name, row in measured["presets"].items()
    ]
    return (
        f"{head}\n\n{table(['', 'attacked', 'clean'], rows)}\n\n"
        f"Remade by `{measured['command']}` (commit {measured['commit'][:12]})."
    )


def beside(others: dict[str, dict[str, Any]], own: dict[str, Any]) -> str:
    """Other weights and these on the same images, clean and attacked."""
    rows = []
    for weights, measured in {"these weights": own, **others}.items():
        for name, row in measured["presets"].items():
            chain = row["preset"]
            length, replicates = steps(chain["num_steps"], chain.get("settle")), str(chain["replicates"])
            accuracies = [_percent(row["transfer"]), _percent(row["clean"])]
            rows.append([f"{weights}, {name}", length, replicates, *accuracies])
    named = "; ".join(
        f"{what}: {measured['weights'][:16]}, measured at commit {measured['commit'][:12]}"
        for what, measured in others.items()
    )
    head = f"The same test images and attack with weights that are not in this bundle ({named})."
    return f"{head}\n\n{table(['', 'steps', 'replicates', 'attacked', 'clean'], rows)}"


def trade_off(measured: dict[str, Any]) -> str:
    """The settings on the Pareto front."""
    chain = ("num_steps", "settle", "step_size", "temperature")
    held = {tuple(row.get(key) for key in chain): _percent(row["held"]) for row in measured.get("white_box", [])}
    rows = [
        [
            steps(row["num_steps"], row.get("settle")),
            f"{row['step_size']:g}",
            f"{row['temperature']:g}",
            str(row["replicates"]),
            _percent(row["clean"]),
            _percent(row["transfer"]),
            *([held.get(tuple(row.get(key) for key in chain), "not measured yet")] if held else []),
            f"{row['image_steps']:,.0f}",
        ]
        for row in undominated(measured["rows"])
    ]
    header = ["steps", "step size", "temperature", "replicates", "clean", "transfer"]
    settling = any(row.get("settle") for row in measured["rows"])
    header += ["white box"] * bool(held) + ["image-steps a clean image" if settling else "image-steps an image"]
    first, count = measured["first"], measured["images"]
    source = f"Test images {first:,} to {first + count - 1:,}, PGD transfer as above, {measured['precision']}"
    shown = f"Of {len(measured['rows'])} settings, those that no other beats in clean, transfer and cost at once"
    if held:
        some = measured["white_box"][0]
        shown += (
            f". White box: {some['attack']}, {some['gradient']}, on the first {some['held']['total']} images, by the "
            "mean logits of up to 128 replicates: one attack to rank settings by, not a worst case"
        )
    return f"{source}. {shown}.\n\n{table(header, rows)}\n\nRemade by `{measured['command']}`."


def undominated(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The Pareto front of cost (image-steps), clean and transfer accuracy, cheapest first."""

    def merits(row: dict[str, Any]) -> tuple[float, float, float]:
        return -row["image_steps"], row["clean"]["accuracy"], row["transfer"]["accuracy"]

    def beaten(row: dict[str, Any]) -> bool:
        mine = merits(row)
        return any(
            theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True)) for theirs in map(merits, rows)
        )

    return sorted((row for row in rows if not beaten(row)), key=lambda row: float(row["image_steps"]))


def steps(num_steps: int, settle: float | None) -> str:
    """A chain's length, and the rule that may end it early."""
    return str(num_steps) if settle is None else f"at most {num_steps}, settle {settle:g}"


def _percent(value: dict[str, Any]) -> str:
    low, high = 100 * value["low"], 100 * value["high"]
    return f"{100 * value['accuracy']:.1f} % [{low:.1f}, {high:.1f}]"


def table(header: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
