"""What the events of a stream hold before its `result`, which is an answer, or its `error`, which is a problem."""

from pydantic import BaseModel, Field


class Queued(BaseModel):
    """Event `queued`: the request was admitted."""

    cost: int = Field(description="Image-steps of this request.")
    estimated_seconds: int | None = Field(description="Until the result, at the measured speed; null before that.")


class Progress(BaseModel):
    """Event `progress`: chains have advanced."""

    steps_done: int
    steps_total: int
    fraction: float
