"""What the numbers rest on: certificates, detection, checklist, indicators, pictures, the command and the words."""

from attacks_eval.evaluation import Evaluation, Indicator
from attacks_eval.report import plots
from attacks_eval.report.gallery import AdversarialImages, gallery
from attacks_eval.report.words import attack_title, counted, share
from models.pages.document import (
    Block,
    Code,
    Facts,
    Figure,
    Figures,
    Point,
    Points,
    Section,
    Text,
    absent,
    row,
    table,
)
from models.pages.wording import percent, plural, settings


def certification(evaluation: Evaluation) -> Section:
    """The curve of randomised smoothing."""
    title, found = "Certified accuracy", evaluation.certification
    if found is None:
        return absent("certified", title, "no certificates were computed")
    said = Text(
        "The only numbers here that no future attack can lower. They hold for the smoothed classifier (Gaussian noise "
        f"of sigma {found.sigma:g} in [0, 1] pixel units, then one chain, then the majority of the answers), not for "
        f"the served one; {plural(found.estimation, 'draw')} an image after {found.selection:,} that choose the class; "
        f"each certificate with {percent(1 - found.alpha)} confidence. {plural(found.abstained, 'image')} of "
        f"{found.images} abstained. So many draws can certify a radius of {found.largest_radius:.3g} at most."
    )
    if not found.points:
        return Section("certified", title, (said,))
    rows = [
        row(f"{point.radius:.3g}", f"{255 * point.radius:.3g}/255", counted(point.accuracy)) for point in found.points
    ]
    head = ("L2 radius", "in 1/255 units", "certified and right")
    alt = "; ".join(f"{share(point.accuracy)} at radius {point.radius:.3g}" for point in found.points)
    caption = f"Randomised smoothing on {plural(found.images, 'image')}; the band is the interval over images."
    figure = Figure(plots.certified("certified", found), caption, alt, table("The same in numbers", head, rows))
    return Section("certified", title, (said, Figures((figure,))))


def detection(evaluation: Evaluation) -> Section:
    """Whether attacked images can be told from clean ones."""
    title = "Telling attacked images from clean ones"
    if not evaluation.detection:
        return absent("detection", title, "no quantity was tried as a detector")
    rows = [
        row(
            each.quantity.replace("_", " "),
            attack_title(evaluation, each.attack),
            "yes" if each.attacker_knows else "no",
            f"{each.clean_images} / {each.attacked_images}",
            f"{each.auroc:.3f}",
            percent(each.tpr),
        )
        for each in evaluation.detection
    ]
    head = (
        "quantity",
        "attack",
        "attacker knows the purifier",
        "clean / attacked",
        "AUROC",
        "found at 1 % false alarms",
    )
    blocks: list[Block] = [table("How well one quantity tells them apart; an AUROC of 0.5 is chance", head, rows)]
    said = "No attacker here tries to hide from the detector; one who does may be found less often."
    blocks.append(Text(said, "warning"))
    return Section("detection", title, tuple(blocks))


def checklist(evaluation: Evaluation) -> Section:
    """The checklist of Carlini et al., with evidence; what was not run stands first."""
    items = sorted(evaluation.checklist, key=lambda item: item.done)
    done = sum(item.done for item in items)
    points = tuple(
        Point("done" if item.done else "not run", item.item, item.evidence, tone="good" if item.done else "warning")
        for item in items
    )
    said = Text(f"{done} of {plural(len(items), 'item')} of the checklist of Carlini et al. (arXiv 1902.06705) done.")
    return Section("checklist", "Checklist", (said, Points(points)) if items else (Text("Not run.", "quiet"),))


def indicators(evaluation: Evaluation) -> Section:
    """Signs of an evaluation that lies: those that fired, then the quiet ones, then what was not looked at."""
    if not evaluation.indicators:
        return absent("indicators", "Indicators", "no sign of a misleading evaluation was looked for")
    order = {True: 0, False: 1, None: 2}
    points = tuple(_indicator(each) for each in sorted(evaluation.indicators, key=lambda each: order[each.fired]))
    fired = sum(each.fired is True for each in evaluation.indicators)
    said = Text(
        "Signs that the evaluation, or the defence, is not what it seems (after Pintor et al., arXiv 2106.09947)."
    )
    count = Text(f"{plural(fired, 'sign')} fired." if fired else "None fired.", "bad" if fired else "")
    return Section("indicators", "Indicators", (said, count, Points(points)))


def _indicator(found: Indicator) -> Point:
    if found.fired is None:
        return Point("not looked at", found.title, found.finding, tone="quiet")
    if found.fired:
        return Point("fired", found.title, found.finding, found.advice, "bad")
    return Point("quiet", found.title, found.finding, tone="good")


def pictures(evaluation: Evaluation, images: AdversarialImages | None) -> Section:
    """The gallery."""
    if images is None:
        return absent("gallery", "Gallery", "adv.npz, which holds the images, is not beside result.json")
    if not evaluation.gallery:
        return absent("gallery", "Gallery", "no images were chosen")
    said = Text(
        "The adversarial image as it is stored, with 256 levels. The difference is shown ten times as large around "
        "grey: a grey pixel is unchanged. Purified: one chain from the adversarial image, clipped to be shown."
    )
    return Section("gallery", "Gallery", (said, gallery(evaluation, images)))


def reproduce(evaluation: Evaluation) -> Section:
    """The command, and the plan that it ran."""
    said = Text(f"At commit {evaluation.commit}, with torch {evaluation.torch} on {evaluation.device}:")
    rows = [row(key, settings({"": value}).strip()) for key, value in evaluation.plan.items()]
    plan = table(f"The plan {evaluation.plan_name} in full", ("key", "value"), rows, words=True, folded=True)
    return Section("reproduce", "Run it again", (said, Code(evaluation.command), plan))


def glossary() -> Section:
    """The words that the page uses."""
    return Section("glossary", "Words", (Facts(GLOSSARY),))


GLOSSARY = (
    ("Worst case", "Images that every attack left right. Each image falls to whichever attack suits it."),
    ("Mean logits", "The classifier's outputs averaged over many purifications; their largest one is the answer."),
    ("Replicate, draw", "One purification of the image with its own noise, and the answer to it."),
    ("Undecided", "So close to even among the draws that the largest number of them did not settle it."),
    (
        "White box",
        "The attacker holds the weights, the code and the settings, and differentiates through the purifier.",
    ),
    ("Black box", "The attacker sees answers alone."),
    ("Transfer", "The attack is made on a classifier without the purifier, and then tried on the defence."),
    ("BPDA", "An attack whose gradient takes the purifier to be the identity; often too weak."),
    ("Smooth twin", "The same energy with smooth activations: its gradients see what those of a ReLU network hide."),
    ("EOT", "Gradients averaged over replicates, because each is noisy."),
    ("Question", "One image put to the defence by an attack, answered by the mean over its EOT replicates."),
    ("Image-step", "One energy gradient of one image: the unit of cost."),
    ("Budget", "How far a pixel (L-infinity) or the whole image (L2) may move, in steps of the 256 levels."),
    ("Margin", "The true class's mean logit minus the best other one; below zero the answer is wrong."),
    ("Certified", "Proved, with the stated confidence, against every change up to that radius."),
)
