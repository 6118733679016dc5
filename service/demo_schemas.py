"""What the demonstration's routes take and answer."""

import base64

from pydantic import BaseModel, Field

from models.config import Frozen
from service.schemas import Prediction

ATTACK_STEPS = 20
"""Of PGD."""
USUAL_BUDGET = 8


class AttackOptions(Frozen):
    """Query parameters of /demo/attack."""

    budget: int = Field(
        USUAL_BUDGET, ge=1, le=255, description="Largest change of a pixel value, in 1/255 units; /info has the most."
    )
    label: str | None = Field(
        None, max_length=64, description="The true class; by default what the bare classifier says of the image."
    )
    resize: bool = Field(False, description="Accept an image of another size by stretching it to the bundle's.")


class Attacked(BaseModel):
    """Answer of /demo/attack: the image as it was read, what was made of it, and the bare classifier's answers."""

    original_png_base64: str
    attacked_png_base64: str
    difference_png_base64: str = Field(description="Ten times the change, on grey.")
    label: str = Field(description="The class that the attack leads away from.")
    budget: int
    linf_255: float = Field(description="Largest change of a pixel value, in 1/255 units.")
    steps: int = Field(description="Of PGD on the bare classifier, which knows nothing of the purifier.")
    original: list[Prediction] = Field(description="Every class, most probable first.")
    attacked: list[Prediction] = Field(description="Every class, most probable first.")
    seconds: float

    @property
    def png(self) -> bytes:
        """The attacked image's file."""
        return base64.b64decode(self.attacked_png_base64)


class PreviewFrame(BaseModel):
    """The first replicate after so many steps."""

    step: int
    png_base64: str


class Preview(BaseModel):
    """Event `preview`: what the first replicates did since the last one."""

    frames: list[PreviewFrame]
    energies: list[list[float]] = Field(description="U before each new step, one list a replicate.")


class Vote(BaseModel):
    """One replicate's end: its class, that class's probability, and the picture of the first replicates."""

    label: str
    probability: float
    png_base64: str | None


class Votes(BaseModel):
    """Event `votes`: the replicates one by one; their mean logits are the answer."""

    votes: list[Vote]
