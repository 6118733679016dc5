"""The model card: a bundle's manifest for people."""

from collections.abc import Sequence
from typing import Any

from models.manifest import Manifest


def render_model_card(manifest: Manifest) -> str:
    """Markdown: what the bundle is, what was measured (worst first), how it was made, what it is not for."""
    parts = [f"# {manifest.name}", manifest.description, _identity(manifest)]
    if "robustness" in manifest.measured:
        parts += ["## Against an attacker who knows the defence", _robustness(manifest.measured["robustness"])]
    if "baseline" in manifest.measured:
        parts += ["## Against an attacker who does not", _baseline(manifest.measured["baseline"])]
    if "beside" in manifest.measured:
        parts += ["## Beside other weights", _beside(manifest.measured["beside"], manifest.measured["baseline"])]
    if "trade_off" in manifest.measured:
        parts += ["## Steps, step size and replicates", _trade_off(manifest.measured["trade_off"])]
    if not manifest.measured:
        parts += ["## Measured", "Nothing yet: `python -m attacks_eval baseline --bundle DIR` measures it."]
    if manifest.calibration:
        parts += ["## Suspicion", _suspicion(manifest)]
    parts += ["## Presets", _presets(manifest), "## Training", _training(manifest), "## Limits", LIMITS]
    return "\n\n".join(parts) + "\n"


LIMITS = """\
Purification with Langevin dynamics resists attacks made against the bare classifier. It is **not** a guarantee
against an attacker who knows the purifier and differentiates through it or through a smooth twin of its energy: one
defence of this kind fell from 55 % to about 6 % that way (MEFA, arXiv 2605.06357).
Answers vary between calls, because chains are random."""

OOD = """\
`ood` is the share of those clean images whose energy lies nearer to their mean, be it above or below, by construction
too. It does not find images of another kind whose energies are like theirs."""

# Of a robustness result, what a card shows; the whole stands beside its report.
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
)
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


def _robustness(measured: dict[str, Any]) -> str:
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
    parts = [head, _table(["attack", "held"], rows), *[f"- {line}." for line in others], measured["gradient_note"]]
    if measured["certification"]:
        parts.append(_certified(measured["certification"]))
    return "\n\n".join([*parts, f"Remade by `{measured['command']}` (commit {measured['commit'][:12]})."])


def _certified(found: dict[str, Any]) -> str:
    points = [point for point in found["points"] if point["accuracy"]["correct"]]
    shown = [points[0], points[len(points) // 2], points[-1]] if points else []
    radii = "; ".join(f"L2 {point['radius']:.3f}: {_percent(point['accuracy'])}" for point in shown)
    return (
        f"Certified (randomised smoothing, sigma {found['sigma']:g}, {found['estimation']} draws, confidence "
        f"{100 * (1 - found['alpha']):g} %, {found['images']} images; of the smoothed classifier, not of the served "
        f"one): {radii or 'nothing'}."
    )


def _identity(manifest: Manifest) -> str:
    image = manifest.image
    return (
        f"Images: {image.width} x {image.height} pixels, {image.channels} channel(s). "
        f"Classes: {', '.join(manifest.class_names)}.\n\nDigest: `{manifest.digest}`"
    )


def _presets(manifest: Manifest) -> str:
    rows = [
        [
            f"{name} (default)" if name == manifest.default_preset else name,
            _steps(preset.num_steps, preset.settle),
            f"{preset.step_size:g}",
            f"{preset.temperature:g}",
            str(preset.replicates),
            preset.precision,
        ]
        for name, preset in manifest.presets.items()
    ]
    return _table(["preset", "steps", "step size", "temperature", "replicates", "precision"], rows)


def _percent(value: dict[str, Any]) -> str:
    low, high = 100 * value["low"], 100 * value["high"]
    return f"{100 * value['accuracy']:.1f} % [{low:.1f}, {high:.1f}]"


def _baseline(measured: dict[str, Any]) -> str:
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
        f"{head}\n\n{_table(['', 'attacked', 'clean'], rows)}\n\n"
        f"Remade by `{measured['command']}` (commit {measured['commit'][:12]})."
    )


def _beside(others: dict[str, dict[str, Any]], own: dict[str, Any]) -> str:
    """Other weights and these on the same images, clean and attacked."""
    rows = []
    for weights, measured in {"these weights": own, **others}.items():
        for name, row in measured["presets"].items():
            chain = row["preset"]
            steps, replicates = _steps(chain["num_steps"], chain.get("settle")), str(chain["replicates"])
            accuracies = [_percent(row["transfer"]), _percent(row["clean"])]
            rows.append([f"{weights}, {name}", steps, replicates, *accuracies])
    named = "; ".join(
        f"{what}: {measured['weights'][:16]}, measured at commit {measured['commit'][:12]}"
        for what, measured in others.items()
    )
    head = f"The same test images and attack with weights that are not in this bundle ({named})."
    return f"{head}\n\n{_table(['', 'steps', 'replicates', 'attacked', 'clean'], rows)}"


def _trade_off(measured: dict[str, Any]) -> str:
    chain = ("num_steps", "settle", "step_size", "temperature")
    held = {tuple(row.get(key) for key in chain): _percent(row["held"]) for row in measured.get("white_box", [])}
    rows = [
        [
            _steps(row["num_steps"], row.get("settle")),
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
    return f"{source}. {shown}.\n\n{_table(header, rows)}\n\nRemade by `{measured['command']}`."


def _steps(num_steps: int, settle: float | None) -> str:
    return str(num_steps) if settle is None else f"at most {num_steps}, settle {settle:g}"


def _suspicion(manifest: Manifest) -> str:
    """What was calibrated on what; how many attacked images it finds is not claimed here."""
    rows = []
    for name, calibration in manifest.calibration.items():
        origin = calibration.origin
        taken = f"{origin.data} test images {origin.first:,} to {origin.first + origin.images - 1:,}"
        rows.append([name, taken, str(len(calibration.scores)), f"{calibration.largest:.3f}"])
    text = (
        "`suspicion` is the share of clean images that look less unusual to the defence (disagreement of the "
        "replicates, distance moved, energy lost), so about 5 % of clean images exceed 0.95, and about 1 % exceed "
        "0.99, by construction. How many attacked images do so was not measured, and an attacker who knows of it can "
        "try to stay below."
    )
    if "robustness" in manifest.measured:
        text += " The robustness report has what was measured of each signal alone."
    if any(calibration.typicality for calibration in manifest.calibration.values()):
        text += f"\n\n{OOD}"
    header = ["preset", "clean images", "of them, compared with", "largest suspicion"]
    command = "python -m models evaluate BUNDLE --calibrate --first FIRST --images COUNT"
    return f"{text}\n\n{_table(header, rows)}\n\nRemade by `{command}`."


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


def _training(manifest: Manifest) -> str:
    lines = []
    record = manifest.training
    if record is None:
        return "Not recorded."
    for part, made in (("energy", record.energy), ("classifier", record.classifier)):
        if made is not None:
            network = made.recipe["network"]
            lines.append(
                f"- {part}: `{network['name']}` {network['arguments']}, {made.updates:,} updates, "
                f"{made.cpu_hours:.2f} CPU hours"
            )
            lines += [
                f"  - {key}: {value['first']:.4g} at first, {value['mean_of_last_tenth']:.4g} over the last tenth"
                for key, value in made.log.items()
            ]
            lines += [
                f"  - recipe changed after update {item['update']}: {'; '.join(item['changed'])}"
                for item in made.amendments
            ]
    lines.append("\nThe full recipes are in `manifest.json` under `training`.")
    return "\n".join(lines)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
