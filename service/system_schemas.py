"""What probes, /info and the Open Inference Protocol answer."""

from pydantic import BaseModel, Field


class Health(BaseModel):
    """A probe's answer when all is well."""

    status: str = Field(examples=["ready"])


class PresetInfo(BaseModel):
    """What a preset costs.

    `settle`: a chain stops early when its energy no longer falls by so many standard errors; null runs every step.
    """

    steps: int
    settle: float | None
    replicates: int


class Limits(BaseModel):
    """What the server refuses to exceed."""

    max_body_bytes: int
    max_pixels: int
    max_steps: int
    max_replicates: int
    max_images: int = Field(description="Images in one request.")
    max_cost: int = Field(description="Image-steps of one request: images x (replicates + certify draws) x steps.")
    request_timeout: float = Field(description="Seconds: most, and default, of the X-Request-Timeout header.")


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


class QueueInfo(BaseModel):
    """How busy the engine is, on purpose coarsely: exact numbers would tell callers of each other."""

    fraction: float = Field(
        ge=0, le=1, description="Share of the queue that is taken, to two decimals.", examples=[0.25]
    )
    cost: int = Field(description="Image-steps that the queue holds, at the measured speed; 0 until it is measured.")
    slots: int = Field(description="Chains that run at a time.")


class DemoInfo(BaseModel):
    """What the demonstration's attack may do."""

    steps: int = Field(description="Of PGD on the bare classifier.")
    max_budget: int = Field(description="Largest change of a pixel value, in 1/255 units.")


class Info(Index):
    """The index, and what a client adapts to."""

    version: str = Field(examples=["0.1.0"])
    device: str = Field(examples=["cpu"])
    queue: QueueInfo
    calibrated: list[str] = Field(description="Presets whose answers have a suspicion.")
    auth_required: bool = Field(description="Whether requests need a key.")
    demo: DemoInfo | None = Field(description="Null unless the server was started with --demo.")


class ServerMetadata(BaseModel):
    """Open Inference Protocol: the server."""

    name: str = Field(examples=["limpid"])
    version: str = Field(examples=["0.1.0"])
    extensions: list[str]


class ServerLive(BaseModel):
    """Open Inference Protocol: the process is worth keeping."""

    live: bool


class ServerReady(BaseModel):
    """Open Inference Protocol: requests will be answered."""

    ready: bool


class ModelReady(BaseModel):
    """Open Inference Protocol: one model is ready."""

    name: str
    ready: bool


class TensorMetadata(BaseModel):
    """Open Inference Protocol: a tensor; -1 is any size."""

    name: str = Field(examples=["image"])
    datatype: str = Field(examples=["UINT8"])
    shape: list[int] = Field(examples=[[-1, 3, 32, 32]])


class ModelMetadata(BaseModel):
    """Open Inference Protocol: one model. Its only version is the bundle's digest."""

    name: str
    versions: list[str]
    platform: str = Field(examples=["limpid_midrun_langevin"])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
