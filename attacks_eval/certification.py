"""Certifies the first images of a run, through the ledger."""

from typing import Any

from attacks_eval.certify import CertifyConfig, ImageCertificate, certified_accuracy, certify_image
from attacks_eval.evaluation import Certification, CertifiedPoint
from attacks_eval.plans import CertifyPlan
from attacks_eval.run import Run
from attacks_eval.shares import Share
from models.certificate import Certificate
from models.console import progress_bar
from models.purifier import CHAINS_PER_BATCH

POINTS = 13


def certify_images(run: Run, plan: CertifyPlan) -> Certification:
    """Certificates of one replicate behind Gaussian noise, and their curve."""
    config, tasks = plan.config, run.tasks[: plan.images]
    missing = [task for task in tasks if run.ledger.get("certify", task.number) is None]
    if missing:
        with progress_bar(f"certificates, sigma {config.sigma:g}", len(missing)) as progress:
            for task in missing:
                stream = run.stream.child("certify", task.number)
                own = certify_image(run.defence.predict, task.image, task.label, config, stream, CHAINS_PER_BATCH)
                run.ledger.add(("certify", task.number), _as_json(own))
                progress.advance(progress.task_ids[0])
    found = [_from_json(entry, config) for task in tasks if (entry := run.ledger.get("certify", task.number))]
    radii = sorted({*plan.radii, *(config.largest_radius * point / (POINTS - 1) for point in range(POINTS))})
    curve = zip(radii, certified_accuracy(found, radii), strict=True)
    return Certification(
        sigma=config.sigma,
        selection=config.selection,
        estimation=config.estimation,
        alpha=config.alpha,
        images=len(found),
        largest_radius=config.largest_radius,
        points=[CertifiedPoint(radius=round(r, 5), accuracy=Share.model_validate(a.as_json())) for r, a in curve],
        abstained=sum(each.certificate.prediction is None for each in found),
    )


def _as_json(found: ImageCertificate) -> dict[str, Any]:
    own = found.certificate
    counts = {"top": own.top, "successes": own.successes, "lower": own.lower}
    return {"label": found.label, "selection": list(found.selection), "drawn": found.drawn, **counts}


def _from_json(entry: dict[str, Any], config: CertifyConfig) -> ImageCertificate:
    certificate = Certificate(
        top=entry["top"],
        successes=entry["successes"],
        draws=config.estimation,
        sigma=config.sigma,
        alpha=config.alpha,
        lower=entry["lower"],
    )
    return ImageCertificate(entry["label"], certificate, tuple(entry["selection"]), entry["drawn"])
