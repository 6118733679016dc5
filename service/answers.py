"""From the engine's results to what callers read."""

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from torch import Tensor

from models.bundle import Bundle
from models.calibration import measure_signals
from models.certificate import ALPHA, certify_logits
from models.image_files import encode_png
from models.pixels import distance_l2, distance_linf, from_uint8, to_uint8
from models.purifier import agreement
from service.errors import RequestError
from service.intake import Answered, Work
from service.jobs import Result, Smoothing
from service.parameters import Plan
from service.problems import problem_document
from service.restore_schemas import Restoration, Restorations
from service.schemas import (
    CertificateAnswer,
    Classification,
    Classifications,
    ClassifiedImage,
    ClassifiedItem,
    Distance,
    FailedItem,
    Prediction,
    Purification,
    Purifications,
    PurifiedImage,
    PurifiedItem,
    Shared,
    SharedClassification,
    Timings,
)
from service.state import service_of

# Of a certificate's draws, the share that selects the class.
SELECTION_SHARE = 4

Outcomes = Sequence[Answered | RequestError]
Answer = Classification | Classifications | Purification | Purifications | Restoration | Restorations


@dataclass(frozen=True)
class Picture:
    """An answer that is one PNG file, and what its headers tell of it besides."""

    name: str
    png: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Purified:
    """One purified image as a PNG, and how far it moved."""

    png: bytes
    distance: Distance


def classification(request: Request, work: Work, outcomes: Outcomes) -> Classification | Classifications:
    """The answer of /classify."""
    bundle, replicates = service_of(request).engine.bundle, work.plan.params.preset.replicates
    shared = SharedClassification(**dict(shared_fields(request, work, outcomes)), replicates=replicates)
    if not work.several:
        (outcome,) = outcomes
        assert isinstance(outcome, Answered)
        return Classification(**dict(classified(outcome, work.plan, bundle)), **dict(shared))
    results = [
        failed_item(request, index, outcome)
        if isinstance(outcome, RequestError)
        else ClassifiedItem(index=index, **dict(classified(outcome, work.plan, bundle)))
        for index, outcome in enumerate(outcomes)
    ]
    return Classifications(results=results, failed=count_failed(outcomes), **dict(shared))


def purification(request: Request, work: Work, outcomes: Outcomes) -> Purification | Purifications:
    """The answer of /purify, in JSON."""
    bundle, shared = service_of(request).engine.bundle, dict(shared_fields(request, work, outcomes))
    if not work.several:
        (outcome,) = outcomes
        assert isinstance(outcome, Answered)
        return Purification(**dict(purified_image(outcome, work.plan, bundle)), **shared)
    results = [
        failed_item(request, index, outcome)
        if isinstance(outcome, RequestError)
        else PurifiedItem(index=index, **dict(purified_image(outcome, work.plan, bundle)))
        for index, outcome in enumerate(outcomes)
    ]
    return Purifications(results=results, failed=count_failed(outcomes), **shared)


def purified(outcome: Answered) -> Purified:
    """The image of the first chain, and its distance to the decoded upload."""
    after = to_uint8(outcome.result.purified[0])
    a, b = from_uint8(outcome.pixels).unsqueeze(0), from_uint8(after).unsqueeze(0)
    l2, linf = round(float(distance_l2(a, b)), 4), round(float(distance_linf(a, b)), 4)
    return Purified(encode_png(after), Distance(l2=l2, linf_255=linf))


def purified_picture(outcome: Answered) -> Picture:
    """The answer of /purify as an image alone."""
    image = purified(outcome)
    own = {"X-Limpid-L2": str(image.distance.l2), "X-Limpid-Linf-255": str(image.distance.linf_255)}
    return Picture("purified.png", image.png, own)


def shared_fields(request: Request, work: Work, outcomes: Outcomes) -> Shared:
    """What every kind of answer tells of the request."""
    return Shared(
        preset=work.plan.preset_name,
        steps=work.plan.params.preset.num_steps,
        bundle=service_of(request).engine.bundle.digest,
        timings=_timings(request, work, outcomes),
        request_id=request.state.request_id,
    )


def headers(shared: Shared) -> dict[str, str]:
    """What the headers repeat, for answers that are not JSON."""
    durations = shared.timings.model_dump().items()
    return {
        "Vary": "Accept",
        "X-Model-Digest": shared.bundle,
        "X-Limpid-Preset": shared.preset,
        "X-Limpid-Steps": str(shared.steps),
        "Server-Timing": ", ".join(f"{name.removesuffix('_ms')};dur={value:g}" for name, value in durations),
    }


def failed_item(request: Request, index: int, error: RequestError) -> FailedItem:
    """An image that got no answer while others did."""
    return FailedItem(index=index, status=error.status, problem=problem_document(request, error))


def count_failed(outcomes: Outcomes) -> int:
    """How many images got no answer."""
    return sum(isinstance(outcome, RequestError) for outcome in outcomes)


def purified_image(outcome: Answered, plan: Plan, bundle: Bundle) -> PurifiedImage:
    """What is said of one image whose chain has ended, the image included."""
    image, (_, height, width) = purified(outcome), outcome.pixels.shape
    return PurifiedImage(
        png_base64=base64.b64encode(image.png).decode("ascii"),
        width=width,
        height=height,
        distance=image.distance,
        mean_steps=mean_steps(outcome.result),
        ood=ood(outcome.result, plan, bundle),
    )


def classified(outcome: Answered, plan: Plan, bundle: Bundle) -> ClassifiedImage:
    """What is said of one image that went through the engine."""
    result, names = outcome.result, bundle.manifest.class_names
    assert result.logits is not None
    assert result.undefended is not None
    predictions = top_predictions(result.logits.mean(0), names, plan.top_k, plan.labels_only)
    (undefended,) = top_predictions(result.undefended, names, 1, labels_only=False)
    votes = round(float(agreement(result.logits.unsqueeze(1))[0]), 6)
    return ClassifiedImage(
        predictions=predictions,
        agreement=None if plan.labels_only else votes,
        undefended=None if plan.labels_only else undefended,
        suspicion=_suspicion(outcome, plan, bundle),
        ood=ood(result, plan, bundle),
        certificate=_certificate(result.smoothed_logits, plan.params.smoothing, names),
        mean_steps=None if plan.labels_only else mean_steps(result),
    )


def mean_steps(result: Result) -> float:
    """Steps that the replicates ran."""
    return round(float(result.steps.float().mean()), 2)


def top_predictions(logits: Tensor, names: Sequence[str], top_k: int, labels_only: bool) -> list[Prediction]:
    """The `top_k` most probable classes of logits [K], most probable first."""
    top = logits.double().softmax(0).topk(min(top_k, len(names)))
    return [
        Prediction(label=names[index], index=index, probability=None if labels_only else round(probability, 6))
        for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]


def _suspicion(outcome: Answered, plan: Plan, bundle: Bundle) -> float | None:
    """None where it is not calibrated: clean images look different through another chain."""
    calibration = bundle.manifest.calibration.get(plan.preset_name)
    if calibration is None or not plan.unchanged or plan.labels_only:
        return None
    result = outcome.result
    assert result.logits is not None
    image, drop = from_uint8(outcome.pixels).unsqueeze(0), result.energy_drop.unsqueeze(1)
    signals = measure_signals(image, result.purified.unsqueeze(1), result.logits.unsqueeze(1), drop)
    return round(float(calibration.suspicion(signals)[0]), 6)


def ood(result: Result, plan: Plan, bundle: Bundle) -> float | None:
    """Of the image as it came: unlike suspicion it does not depend on the chain's steps."""
    calibration = bundle.manifest.calibration.get(plan.preset_name)
    if calibration is None or calibration.typicality is None or result.energy is None or plan.labels_only:
        return None
    return round(float(calibration.typicality.ood(result.energy.unsqueeze(0))[0]), 6)


def _certificate(logits: Tensor | None, smoothing: Smoothing | None, names: Sequence[str]) -> CertificateAnswer | None:
    if logits is None or smoothing is None:
        return None
    certificate = certify_logits(logits, len(logits) // SELECTION_SHARE, smoothing.sigma)
    index = certificate.prediction
    return CertificateAnswer(
        label=None if index is None else names[index],
        index=index,
        radius_l2=round(certificate.radius, 6),
        sigma=smoothing.sigma,
        confidence=1.0 - ALPHA,
        draws=len(logits),
        abstained=index is None,
    )


def _timings(request: Request, work: Work, outcomes: Outcomes) -> Timings:
    results = [outcome.result for outcome in outcomes if isinstance(outcome, Answered)]
    seconds: dict[str, Any] = {
        "decode_ms": work.decode_seconds,
        "queue_ms": max((result.queue_seconds for result in results), default=0.0),
        "purify_ms": max((result.purify_seconds for result in results), default=0.0),
        "classify_ms": max((result.classify_seconds for result in results), default=0.0),
        "total_ms": time.perf_counter() - request.state.started,
    }
    return Timings(**{name: round(1000.0 * value, 3) for name, value in seconds.items()})
