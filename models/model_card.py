"""The model card: a bundle's manifest for people."""

from models.card_measurements import baseline, beside, robustness, steps, table, trade_off
from models.manifest import Manifest


def render_model_card(manifest: Manifest) -> str:
    """Markdown: what the bundle is, what was measured (worst first), how it was made, what it is not for."""
    parts = [f"# {manifest.name}", manifest.description, _identity(manifest)]
    if "robustness" in manifest.measured:
        parts += ["## Against an attacker who knows the defence", robustness(manifest.measured["robustness"])]
    if "baseline" in manifest.measured:
        parts += ["## Against an attacker who does not", baseline(manifest.measured["baseline"])]
    if manifest.beside:
        parts += ["## Beside other weights", beside(manifest.beside, manifest.measured["baseline"])]
    if "trade_off" in manifest.measured:
        parts += ["## Steps, step size and replicates", trade_off(manifest.measured["trade_off"])]
    if not manifest.measured:
        parts += ["## Measured", "Nothing yet: `python -m attacks_eval baseline --bundle DIR` measures it."]
    if manifest.calibration:
        parts += ["## Suspicion", _suspicion(manifest)]
    parts += ["## Presets", _presets(manifest), "## Training", _training(manifest), "## Limits", _limits(manifest)]
    return "\n\n".join(parts) + "\n"


LIMITS = """\
Purification with Langevin dynamics resists attacks made against the bare classifier. It is **not** a guarantee
against an attacker who knows the purifier and differentiates through it or through a smooth twin of its energy: one
defence of this kind fell from 55 % to about 6 % that way (MEFA, arXiv 2605.06357).
Answers vary between calls, because chains are random."""

NOT_PURIFIED = """\
The default preset takes no step: the classifier answers alone, and always the same. Its certificates are the smoothed
classifier's, and no accuracy here is a guarantee against other attacks than those that were run."""
TRAINED_ON_ATTACKS = """\
The classifier was trained on attacked images of one norm and budget, and promises nothing for larger or other ones.
No accuracy here is a guarantee: more attacks can only lower it.
Answers vary between calls, because chains are random."""

OOD = """\
`ood` is the share of those clean images whose energy lies nearer to their mean, be it above or below, by construction
too. It does not find images of another kind whose energies are like theirs."""


def _identity(manifest: Manifest) -> str:
    image = manifest.image
    return (
        f"Images: {image.width} x {image.height} pixels, {image.channels} channel(s). "
        f"Classes: {', '.join(manifest.class_names)}.\n\nDigest: `{manifest.digest}`"
    )


def _limits(manifest: Manifest) -> str:
    if manifest.presets[manifest.default_preset].num_steps == 0:
        return NOT_PURIFIED
    made = manifest.training.classifier if manifest.training else None
    recipes = [] if made is None else [made.recipe, *made.recipe.get("mixed", {}).values()]
    attacked = any(recipe.get("training", {}).get("adversarial") for recipe in recipes)
    return TRAINED_ON_ATTACKS if attacked else LIMITS


def _presets(manifest: Manifest) -> str:
    rows = [
        [
            f"{name} (default)" if name == manifest.default_preset else name,
            steps(preset.num_steps, preset.settle),
            f"{preset.step_size:g}",
            f"{preset.temperature:g}",
            str(preset.replicates),
            preset.precision,
        ]
        for name, preset in manifest.presets.items()
    ]
    return table(["preset", "steps", "step size", "temperature", "replicates", "precision"], rows)


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
        "0.99, by construction. How many attacked images do so is not claimed, and an attacker who knows of it can "
        "try to stay below."
    )
    if "robustness" in manifest.measured:
        text += " The robustness report has what was measured of each signal alone."
    if any(calibration.typicality for calibration in manifest.calibration.values()):
        text += f"\n\n{OOD}"
    header = ["preset", "clean images", "of them, compared with", "largest suspicion"]
    command = "python -m models evaluate BUNDLE --calibrate --first FIRST --images COUNT"
    return f"{text}\n\n{table(header, rows)}\n\nRemade by `{command}`."


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
