"""What the answers of /classify and /purify hold, and their errors; the examples appear in /docs."""

import base64
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

DIGEST = "9f2c5c0d7e3b4a1f8d6e2b7a9c4f1e0d3a5b8c7e6f4d2a1b0c9e8d7f6a5b4c3d"
REQUEST_ID = "4f9c1c0e8a5b4d7e9f3a2b1c0d9e8f7a"
TIMINGS = {"decode_ms": 0.6, "queue_ms": 0.4, "purify_ms": 812.5, "classify_ms": 9.1, "total_ms": 826.3}
CERTIFICATE = {
    "label": "cat",
    "index": 3,
    "radius_l2": 0.1183,
    "sigma": 0.08,
    "confidence": 0.999,
    "draws": 128,
    "abstained": False,
}
CLASSIFIED = {
    "predictions": [
        {"label": "cat", "index": 3, "probability": 0.941207},
        {"label": "dog", "index": 5, "probability": 0.031882},
    ],
    "agreement": 0.875,
    "undefended": {"label": "frog", "index": 6, "probability": 0.999812},
    "suspicion": 0.974,
    "ood": 0.412,
    "certificate": CERTIFICATE,
    "mean_steps": 62.5,
}
PURIFIED = {
    "png_base64": "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAA...",
    "width": 32,
    "height": 32,
    "distance": {"l2": 1.8731, "linf_255": 41.0},
    "mean_steps": 60.0,
    "ood": 0.412,
}
SHARED = {"preset": "balanced", "steps": 200, "bundle": DIGEST, "timings": TIMINGS, "request_id": REQUEST_ID}
PROBLEM = {
    "type": "urn:limpid:problem:unusable-image",
    "title": "Unusable image",
    "status": 422,
    "detail": "the PNG file is corrupt or truncated",
    "instance": "/classify",
    "request_id": REQUEST_ID,
}
FAILED = {"index": 1, "status": 422, "problem": PROBLEM}
Ood = Annotated[
    float | None,
    Field(
        description="How far out of distribution: share of clean images whose energy lies nearer to their mean, be it "
        "above or below; null with labels_only, without steps, and for a preset that is not calibrated for it."
    ),
]


def example(value: dict[str, Any]) -> ConfigDict:
    """A frozen model, and what /docs shows of it."""
    return ConfigDict(frozen=True, json_schema_extra={"examples": [value]})


class FieldError(BaseModel):
    """What is wrong with one parameter."""

    location: str
    detail: str


class Problem(BaseModel):
    """An error, as RFC 9457 describes it."""

    model_config = example(
        {
            "type": "urn:limpid:problem:invalid-parameters",
            "title": "Invalid parameters",
            "status": 422,
            "detail": "preset: unknown preset 'max'; known: fast, balanced, strong",
            "instance": "/classify",
            "request_id": REQUEST_ID,
            "errors": [{"location": "preset", "detail": "unknown preset 'max'; known: fast, balanced, strong"}],
        }
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[FieldError] = []


class Timings(BaseModel):
    """Milliseconds: decoding, waiting for the engine, running chains, classifying, and since the request arrived.

    Of several images: decoding all of them, and the longest of each other stage.
    """

    model_config = example(TIMINGS)

    decode_ms: float
    queue_ms: float
    purify_ms: float
    classify_ms: float
    total_ms: float


class Shared(BaseModel):
    """What holds for every image of a request."""

    preset: str
    steps: int = Field(description="Of a chain, at most: under a preset that lets chains settle, they may stop early.")
    bundle: str = Field(description="SHA-256 that names the weights and presets that answered.")
    timings: Timings
    request_id: str


class FailedItem(BaseModel):
    """One of several images that got no answer; the others did."""

    model_config = example(FAILED)

    index: int = Field(description="Place in the request, from 0.")
    status: int = Field(ge=400, description="The status that this image would have got alone.")
    problem: Problem


class Prediction(BaseModel):
    """A class and its probability: the softmax of the logits averaged over replicates, to six decimals."""

    model_config = example({"label": "cat", "index": 3, "probability": 0.941207})

    label: str
    index: int
    probability: float | None = Field(description="Null with labels_only.")


class CertificateAnswer(BaseModel):
    """What noisy draws prove about the smoothed defence (Cohen et al. 2019): label and index are null on abstention."""

    model_config = example(CERTIFICATE)

    label: str | None
    index: int | None
    radius_l2: float = Field(description="L2 radius, pixels in [0, 1], inside which the answer provably stays.")
    sigma: float
    confidence: float = Field(description="Probability, over the draws, that this statement is true.")
    draws: int
    abstained: bool = Field(description="The draws do not favour one class clearly enough.")


class ClassifiedImage(BaseModel):
    """What the defence says of one image."""

    predictions: list[Prediction] = Field(description="Most probable first.")
    agreement: float | None = Field(
        description="Share of the replicates that vote for the first prediction; null with labels_only."
    )
    undefended: Prediction | None = Field(
        description="What the bare classifier says of the image as uploaded; null with labels_only."
    )
    suspicion: float | None = Field(
        description="Share of clean images that look less unusual than this one; null with labels_only, for a preset "
        "that is not calibrated, and when steps or replicates are not the preset's own."
    )
    ood: Ood
    certificate: CertificateAnswer | None = Field(description="Null unless certify=true.")
    mean_steps: float | None = Field(description="Steps that its replicates ran; null with labels_only.")


class SharedClassification(Shared):
    """What holds for every image of a /classify request."""

    replicates: int


class Classification(ClassifiedImage, SharedClassification):
    """Answer of /classify to one image."""

    model_config = example(CLASSIFIED | SHARED | {"replicates": 8})


class ClassifiedItem(ClassifiedImage):
    """One of several images, classified."""

    index: int = Field(description="Place in the request, from 0.")
    status: Literal[200] = 200


class Classifications(SharedClassification):
    """Answer of /classify to `images`: one result each, in their order."""

    model_config = example(
        {"results": [{"index": 0, "status": 200, **CLASSIFIED}, FAILED], "failed": 1, **SHARED, "replicates": 8}
    )

    results: list[ClassifiedItem | FailedItem]
    failed: int = Field(description="How many of the results are problems.")


class Distance(BaseModel):
    """How far purification moved the image, between the decoded upload and the returned, rounded pixels."""

    model_config = example({"l2": 1.8731, "linf_255": 41.0})

    l2: float = Field(description="Euclidean, over pixels in [0, 1].")
    linf_255: float = Field(description="Largest change of a pixel value, in 1/255 units.")


class PurifiedImage(BaseModel):
    """One image after its chain."""

    png_base64: str
    width: int
    height: int
    distance: Distance
    mean_steps: float = Field(description="Steps that its chain ran.")
    ood: Ood

    @property
    def png(self) -> bytes:
        """The image as a PNG file's content."""
        return base64.b64decode(self.png_base64)


class Purification(PurifiedImage, Shared):
    """Answer of /purify to one image, for a caller that prefers JSON."""

    model_config = example(PURIFIED | SHARED)


class PurifiedItem(PurifiedImage):
    """One of several images, purified."""

    index: int = Field(description="Place in the request, from 0.")
    status: Literal[200] = 200


class Purifications(Shared):
    """Answer of /purify to `images`: one result each, in their order."""

    model_config = example({"results": [{"index": 0, "status": 200, **PURIFIED}, FAILED], "failed": 1, **SHARED})

    results: list[PurifiedItem | FailedItem]
    failed: int = Field(description="How many of the results are problems.")
