"""What requests may ask and what responses hold; the examples appear in /docs."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.config import Frozen

DIGEST = "9f2c5c0d7e3b4a1f8d6e2b7a9c4f1e0d3a5b8c7e6f4d2a1b0c9e8d7f6a5b4c3d"
REQUEST_ID = "4f9c1c0e8a5b4d7e9f3a2b1c0d9e8f7a"
TIMINGS = {"queue_ms": 0.4, "purify_ms": 812.5, "classify_ms": 9.1, "total_ms": 826.3}


def _example(value: dict[str, Any]) -> ConfigDict:
    return ConfigDict(frozen=True, json_schema_extra={"examples": [value]})


class PurifyOptions(Frozen):
    """Parameters of /purify, in the query or as form fields."""

    preset: str | None = Field(
        None, description="A preset of the bundle; GET / lists them. Default: the bundle's own.", examples=["balanced"]
    )
    steps: int | None = Field(None, ge=0, description="Langevin steps, instead of the preset's. 0 changes nothing.")
    replicates: int | None = Field(
        None, ge=1, description="Must be 1: /purify returns the image of one chain, as averaging chains blurs them."
    )
    resize: bool = Field(
        False,
        description="Accept an image of another size by stretching it to the bundle's (bicubic, antialiased). "
        "This changes the pixels that are purified and classified.",
    )


class ClassifyOptions(PurifyOptions):
    """Parameters of /classify, in the query or as form fields."""

    replicates: int | None = Field(
        None, ge=1, description="Independent chains whose logits are averaged, instead of the preset's."
    )
    top_k: int = Field(5, ge=1, description="Most predictions to return; fewer when the bundle has fewer classes.")


class Prediction(BaseModel):
    """A class and its probability: the softmax of the logits averaged over replicates, to six decimals."""

    model_config = _example({"label": "cat", "index": 3, "probability": 0.941207})

    label: str
    index: int
    probability: float


class Timings(BaseModel):
    """Milliseconds: waiting for the engine, running chains, classifying, and since the request arrived."""

    model_config = _example(TIMINGS)

    queue_ms: float
    purify_ms: float
    classify_ms: float
    total_ms: float


class Distance(BaseModel):
    """How far purification moved the image, between the decoded upload and the returned, rounded pixels."""

    model_config = _example({"l2": 1.8731, "linf_255": 41.0})

    l2: float = Field(description="Euclidean, over pixels in [0, 1].")
    linf_255: float = Field(description="Largest change of a pixel value, in 1/255 units.")


class Classification(BaseModel):
    """Answer of /classify."""

    model_config = _example(
        {
            "predictions": [
                {"label": "cat", "index": 3, "probability": 0.941207},
                {"label": "dog", "index": 5, "probability": 0.031882},
            ],
            "agreement": 0.875,
            "undefended": {"label": "frog", "index": 6, "probability": 0.999812},
            "preset": "balanced",
            "steps": 200,
            "replicates": 8,
            "bundle": DIGEST,
            "timings": TIMINGS,
            "request_id": REQUEST_ID,
        }
    )

    predictions: list[Prediction] = Field(description="Most probable first.")
    agreement: float = Field(description="Share of the replicates that vote for the first prediction.")
    undefended: Prediction = Field(description="What the bare classifier says of the image as uploaded.")
    preset: str
    steps: int
    replicates: int
    bundle: str = Field(description="SHA-256 that names the weights and presets that answered.")
    timings: Timings
    request_id: str


class Purification(BaseModel):
    """Answer of /purify to a caller that prefers JSON."""

    model_config = _example(
        {
            "png_base64": "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAA...",
            "width": 32,
            "height": 32,
            "distance": {"l2": 1.8731, "linf_255": 41.0},
            "preset": "balanced",
            "steps": 200,
            "bundle": DIGEST,
            "timings": TIMINGS,
            "request_id": REQUEST_ID,
        }
    )

    png_base64: str
    width: int
    height: int
    distance: Distance
    preset: str
    steps: int
    bundle: str
    timings: Timings
    request_id: str


class FieldError(BaseModel):
    """What is wrong with one parameter."""

    location: str
    detail: str


class Problem(BaseModel):
    """An error, as RFC 9457 describes it."""

    model_config = _example(
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


class Health(BaseModel):
    """A probe's answer when all is well."""

    status: str = Field(examples=["ready"])


class PresetInfo(BaseModel):
    """What a preset costs."""

    steps: int
    replicates: int


class Limits(BaseModel):
    """What the server refuses to exceed."""

    max_body_bytes: int
    max_pixels: int
    max_steps: int
    max_replicates: int


class ImageInfo(BaseModel):
    """The image that the bundle purifies."""

    width: int
    height: int
    channels: int


class Index(BaseModel):
    """What is served here, and within which limits."""

    name: str
    description: str
    bundle: str
    image: ImageInfo
    class_names: list[str]
    presets: dict[str, PresetInfo]
    default_preset: str
    limits: Limits
    endpoints: list[str]
