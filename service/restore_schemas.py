"""What the answers of /restore hold; the examples appear in /docs."""

import base64
from typing import Literal

from pydantic import BaseModel, Field

from service.schemas import FAILED, SHARED, FailedItem, Shared, example

RESTORED = {
    "png_base64": "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAA...",
    "uncertainty_png_base64": "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAA...",
    "width": 32,
    "height": 32,
    "restored_pixels": 102,
    "spread_255": 4.71,
    "mean_steps": 100.0,
}


class SharedRestoration(Shared):
    """What holds for every image of a /restore request."""

    replicates: int


class RestoredImage(BaseModel):
    """One image with the pixels under the mask made anew; the others are the upload's, unchanged."""

    png_base64: str = Field(description="The mean over the replicates.")
    uncertainty_png_base64: str = Field(
        description="Grey, one level for each 1/255 of the replicates' standard deviation; black with one replicate."
    )
    width: int
    height: int
    restored_pixels: int = Field(description="White pixels of the mask.")
    spread_255: float = Field(description="Root mean square over those of the standard deviation, in 1/255 units.")
    mean_steps: float = Field(description="Steps that its replicates ran.")

    @property
    def png(self) -> bytes:
        """The restored image as a PNG file's content."""
        return base64.b64decode(self.png_base64)


class Restoration(RestoredImage, SharedRestoration):
    """Answer of /restore to one image, for a caller that prefers JSON."""

    model_config = example(RESTORED | SHARED | {"replicates": 4})


class RestoredItem(RestoredImage):
    """One of several images, restored."""

    index: int = Field(description="Place in the request, from 0.")
    status: Literal[200] = 200


class Restorations(SharedRestoration):
    """Answer of /restore to `images`: one result each, in their order."""

    model_config = example(
        {"results": [{"index": 0, "status": 200, **RESTORED}, FAILED], "failed": 1, **SHARED, "replicates": 4}
    )

    results: list[RestoredItem | FailedItem]
    failed: int = Field(description="How many of the results are problems.")
