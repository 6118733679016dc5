"""What an evaluation found: the content of `result.json`, and what the report draws.

Accuracies are counts over the same N images, so that they can be compared; every one has its interval.
"""

from typing import Any, Literal

from pydantic import Field

from attacks_eval.judge import Verdict
from attacks_eval.shares import Share, Statistics
from attacks_eval.threat_model import ThreatModel
from models.config import Frozen
from models.purifier import Preset

Knowledge = Literal["white box", "black box", "transfer", "none"]
"""What the attacker knows of the defence, or may ask of it."""


class AttackResult(Frozen):
    """One row of the attack table.

    Args:
        name: unique in the evaluation, for instance `smooth-apgd`.
        title: for people.
        knowledge: what the attacker knows, strongest first: white box, black box, transfer, none.
        configuration: every parameter.
        on: `all` images that were right when clean, or only `survivors` of the attacks above.
        attacked: how many that was.
        statistics: over all N images; an image that was wrong when clean, or broken earlier (on survivors), is wrong.
        unique: images that this attack broke and no other did.
        first: images that this attack broke first, in the order of the table.
        left: images that no attack up to this one has broken.
        median_queries: to break, over the broken images; None when none was.
        broken_at: for each attacked image in turn, the question that broke it or None.
        queries: the most questions an image was asked.
        image_steps, backward_steps, seconds: the cost; steps are energy gradients of one image.
        fixed_randomness: the defence's noise was frozen for this attack, so it is a check of the attack, and not
            part of the worst case.
    """

    name: str
    title: str
    knowledge: Knowledge
    configuration: dict[str, Any]
    on: Literal["all", "survivors"]
    attacked: int
    statistics: Statistics
    unique: int
    first: int
    left: int
    median_queries: float | None
    broken_at: list[int | None]
    queries: int
    image_steps: int
    backward_steps: int
    seconds: float
    fixed_randomness: bool = False


class ImageResult(Frozen):
    """One image: its clean verdict, and the verdict of the image that the strongest attack on it made.

    Args:
        number: in the dataset's test split.
        broken_by: the first attack that broke it; None for a survivor or an image that was wrong when clean.
        all_broken_by: every attack that broke it.
        worst: the verdict of the adversarial image that is kept; None when the image was wrong when clean.
        rounded: its verdict after rounding to 256 levels, on fresh noise.
        distance: of the kept image from the clean one, in the threat's norm, 1/255 units.
    """

    number: int
    label: int
    clean: Verdict
    broken_by: str | None
    all_broken_by: list[str]
    worst: Verdict | None
    rounded: Verdict | None
    distance: float | None


class CurvePoint(Frozen):
    """A value on the x axis, and the accuracies there by name (for instance `clean`, `robust`)."""

    x: float
    accuracies: dict[str, Share]
    seconds_per_image: float | None = None


class Curve(Frozen):
    """Accuracy against one quantity, on the first `images` images.

    Args:
        name: `budget`, `attack_steps`, `eot` or `langevin_steps`.
        note: which attack, in words.
    """

    name: str
    title: str
    x_label: str
    note: str
    images: int
    points: list[CurvePoint]


class Indicator(Frozen):
    """A sign that the evaluation, or the defence, is not what it seems.

    Args:
        fired: True: something is wrong; False: looked and found nothing; None: not looked, `finding` says why.
        finding: what was measured, with numbers.
        advice: what to do about it.
    """

    name: str
    title: str
    fired: bool | None
    finding: str
    advice: str


class ChecklistItem(Frozen):
    """An item of the checklist of Carlini et al. (arXiv 1902.06705): done, or honestly not run, with the evidence."""

    item: str
    done: bool
    evidence: str


class CertifiedPoint(Frozen):
    """Certified accuracy at an L2 radius in [0, 1] pixel units."""

    radius: float
    accuracy: Share


class Certification(Frozen):
    """Randomised smoothing with the purifier as the denoiser.

    Args:
        sigma: standard deviation of the Gaussian noise, in [0, 1] pixel units.
        estimation: draws per image behind each radius.
        largest_radius: what this number of draws can certify at most.
    """

    sigma: float
    selection: int
    estimation: int
    alpha: float
    images: int
    largest_radius: float
    points: list[CertifiedPoint]
    abstained: int


class DetectionRow(Frozen):
    """How well one quantity tells attacked images from clean ones.

    Args:
        quantity: `energy`, `energy_drop`, `distance_l2`, `disagreement`, ...
        attack: the attack whose images are to be told from clean ones.
        auroc: 0.5 is chance; below it the quantity points the other way.
        tpr: share of attacked images found when 1 % of clean ones are flagged.
    """

    quantity: str
    attack: str
    attacker_knows: bool
    clean_images: int
    attacked_images: int
    auroc: float
    tpr: float


class ClassRow(Frozen):
    """One class: clean and worst-case accuracy, and what the defence called its broken images."""

    name: str
    clean: Share
    robust: Share
    mistaken_for: dict[str, int]


class Evaluation(Frozen):
    """The whole result.

    Args:
        images_digest: SHA-256 of the clean images and labels.
        bundle, weights: digests of the bundle as served, and of its weights alone; empty for a defence without one.
        second: weights digest of the bundle that a transfer attack was also made on; empty without one.
        preset: the sampler; None for a purifier that is not a Langevin chain.
        worst_case: images that are right when clean, under every attack, and once the kept image is rounded.
        worst_case_rounded: those of which the kept image, rounded and judged afresh, is right: an open break may be
            undone by chance, so it can be more.
        gradient_note: what was found about the purifier's gradients, in one or two sentences.
        margins: mean-logit margins of the clean images and of the kept adversarial ones.
        confusion: `confusion[true][answered]` over the worst case of each image.
        gallery: numbers of the images to show; `adv.npz` beside the report holds them.
    """

    kind: Literal["robustness"] = "robustness"
    bundle_name: str
    bundle: str
    weights: str
    second: str
    preset_name: str
    preset: Preset | None
    data: str
    first: int
    images: int
    images_digest: str
    class_names: list[str]
    threat: ThreatModel
    plan_name: str
    plan: dict[str, Any]
    seed: int
    command: str
    commit: str
    torch: str
    device: str
    clean: Statistics
    bare: dict[str, Share]
    attacks: list[AttackResult]
    worst_case: Share
    worst_case_rounded: Share
    worst_attack: str
    gradient_note: str
    classes: list[ClassRow]
    confusion: list[list[int]]
    margins: dict[str, list[float]]
    curves: list[Curve]
    indicators: list[Indicator]
    checklist: list[ChecklistItem]
    certification: Certification | None
    detection: list[DetectionRow]
    gallery: list[int]
    image_results: list[ImageResult]
    image_steps: int
    backward_steps: int
    seconds: float
    notes: list[str] = Field(default=[], description="deviations and limits that a reader must know")
