"""What a request may ask for, in the query, as form fields or beside the images of a JSON body."""

from typing import Annotated, ClassVar

from pydantic import Field

from models.config import Frozen

# Keeps absurd numbers out of arithmetic and messages; the server's own bounds are far lower.
HIGHEST = 10**9

Seed = Annotated[
    int | None,
    Field(
        ge=0,
        lt=2**63,
        description="Draw the noise from this seed, to reproduce an answer. Needs a key with the scope admin, or a "
        "server that asks for no keys and that only its own machine reaches: a fixed seed turns a stochastic defence "
        "into a deterministic function, which is far easier to attack.",
    ),
]


class PurifyOptions(Frozen):
    """Parameters of /purify, in the query, as form fields or in a JSON body.

    `takes_mask`: whether the route wants a mask beside its images.
    """

    takes_mask: ClassVar[bool] = False

    preset: str | None = Field(
        None, description="A preset of the bundle; GET / lists them. Default: the bundle's own.", examples=["balanced"]
    )
    steps: int | None = Field(
        None,
        ge=0,
        le=HIGHEST,
        description="Langevin steps, exactly, instead of the preset's. 0 changes nothing.",
    )
    replicates: int | None = Field(
        None,
        ge=1,
        le=HIGHEST,
        description="Must be 1: /purify returns the image of one chain, as averaging chains blurs them.",
    )
    resize: bool = Field(
        False,
        description="Accept an image of another size by stretching it to the bundle's (bicubic, antialiased). "
        "This changes the pixels that are purified and classified.",
    )


class ClassifyOptions(PurifyOptions):
    """Parameters of /classify, in the query, as form fields or in a JSON body."""

    replicates: int | None = Field(
        None, ge=1, le=HIGHEST, description="Independent chains whose logits are averaged, instead of the preset's."
    )
    top_k: int = Field(
        5, ge=1, le=HIGHEST, description="Most predictions to return; fewer when the bundle has fewer classes."
    )
    labels_only: bool = Field(
        False,
        description="Answer with the first prediction's label and index alone: every number that tells an attacker "
        "how close a try came is null, and so is the bare classifier's answer. The server may force it.",
    )
    certify: bool = Field(
        False,
        description="Also classify the image behind Gaussian noise, through one chain a draw, and return the L2 radius "
        "inside which the smoothed classifier provably keeps its answer.",
    )
    certify_draws: int = Field(
        128,
        ge=4,
        le=HIGHEST,
        description="Noisy draws: a quarter of them selects the class, the independent rest bounds its probability. "
        "At most 8 times the server's max_replicates; needs certify=true.",
    )
    sigma: float = Field(
        0.08,
        gt=0,
        le=1,
        description="Standard deviation of the certificate's noise, pixels in [0, 1]; needs certify=true.",
    )
    seed: Seed = None


class RestoreOptions(PurifyOptions):
    """Parameters of /restore, in the query, as form fields or in a JSON body."""

    takes_mask: ClassVar[bool] = True

    replicates: int | None = Field(
        None, ge=1, le=HIGHEST, description="Independent chains whose mean is the answer, instead of the preset's."
    )
    resize: bool = Field(
        False,
        description="Accept images and a mask of another size by stretching them to the bundle's (bicubic, "
        "antialiased). The pixels that are known are then those of the stretched image.",
    )
    seed: Seed = None
