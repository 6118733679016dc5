"""The checklist of Carlini et al. (arXiv 1902.06705), ticked from what was run, never by hand."""

from collections.abc import Sequence

from attacks_eval.evaluation import AttackResult, ChecklistItem, Curve, Indicator
from attacks_eval.threat_model import ThreatModel


def checklist(
    threat: ThreatModel, attacks: Sequence[AttackResult], curves: Sequence[Curve], indicators: Sequence[Indicator]
) -> list[ChecklistItem]:
    """Each item, done or not, with its evidence."""
    gradient = [a for a in attacks if a.knowledge == "white box" and not a.fixed_randomness]
    modes = sorted({str(a.configuration["grad"]) for a in gradient if a.configuration.get("grad")})
    losses = sorted({str(a.configuration["loss"]) for a in gradient if a.configuration.get("loss")})
    names = {kind: ", ".join(a.name for a in attacks if a.knowledge == kind) for kind in {a.knowledge for a in attacks}}
    quiet = {indicator.name: indicator.fired is False for indicator in indicators}
    text = {indicator.name: indicator.finding for indicator in indicators}
    restarts = max((int(a.configuration.get("restarts", 1)) for a in gradient), default=0)
    eot = max((int(a.configuration.get("eot", 1)) for a in gradient), default=0)
    targeted = [a.name for a in attacks if a.configuration.get("targets")]
    plotted = [curve.name for curve in curves]
    items = [
        ("A precise threat model", True, threat.name),
        ("Adaptive attacks, through the defence", bool(gradient), f"gradient modes: {', '.join(modes)}"),
        ("More than one gradient for a defence that is hard to differentiate", len(modes) > 1, ", ".join(modes)),
        ("Expectation over the defence's randomness", eot > 1, f"up to {eot} replicates an answer"),
        ("Transfer attacks", "transfer" in names, names.get("transfer", "not run")),
        ("Attacks without gradients", "black box" in names, names.get("black box", "not run")),
        ("Random noise as the floor", "none" in names, names.get("none", "not run")),
        ("Several losses", len(losses) > 1, ", ".join(losses)),
        ("Several random restarts", restarts > 1, f"{restarts} restart(s) an attack"),
        ("Attacks run until they stop finding", quiet.get("unfinished", False), text.get("unfinished", "")),
        ("An unbounded attack breaks everything", quiet.get("unbounded-survivors", False), text["unbounded-survivors"]),
        ("Frozen randomness attacked too", quiet.get("frozen-survivors", False), text["frozen-survivors"]),
        ("Accuracy against the budget", "budget" in plotted, "see the curve" if "budget" in plotted else "not run"),
        ("Each image's worst case over all attacks", True, f"{len(attacks)} attacks"),
        ("Verdicts on fresh randomness, with intervals", True, "sequential test, Wilson intervals"),
        ("Clean accuracy under the same rules", True, "first row of the table"),
        ("Verified after rounding to 256 levels", quiet.get("rounding-saves", False), text["rounding-saves"]),
        ("Other norms than the threat's", False, "not run: evaluate again with --norm"),
        ("Targeted attacks", bool(targeted), ", ".join(targeted) or "not run"),
        ("Beside adversarial training", False, "not in a report: see reports/STRENGTH.md"),
    ]
    return [ChecklistItem(item=item, done=done, evidence=evidence) for item, done, evidence in items]
