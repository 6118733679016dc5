"""The answers of /restore: the replicates' mean, and where it is a guess."""

import base64
from dataclasses import dataclass

from starlette.requests import Request
from torch import Tensor

from models.image_files import encode_png
from models.pixels import LEVELS, to_uint8
from models.tasks.restoration import spread_levels, summarise
from service.answers import Outcomes, Picture, count_failed, failed_item, mean_steps, shared_fields
from service.errors import RequestError
from service.intake import Answered, Work
from service.restore_schemas import Restoration, Restorations, RestoredImage, RestoredItem, SharedRestoration


@dataclass(frozen=True)
class _Restored:
    """uint8 [C, H, W] and the replicates' spread [1, H, W], of which `pixels` were restored; `spread_255` is theirs."""

    image: Tensor
    spread: Tensor
    pixels: int
    spread_255: float


def restoration(request: Request, work: Work, outcomes: Outcomes) -> Restoration | Restorations:
    """The answer of /restore, in JSON."""
    replicates = work.plan.params.preset.replicates
    shared = dict(SharedRestoration(**dict(shared_fields(request, work, outcomes)), replicates=replicates))
    if not work.several:
        (outcome,) = outcomes
        assert isinstance(outcome, Answered)
        return Restoration(**dict(_restored_image(outcome)), **shared)
    results = [
        failed_item(request, index, outcome)
        if isinstance(outcome, RequestError)
        else RestoredItem(index=index, **dict(_restored_image(outcome)))
        for index, outcome in enumerate(outcomes)
    ]
    return Restorations(results=results, failed=count_failed(outcomes), **shared)


def restored_picture(outcome: Answered) -> Picture:
    """The answer of /restore as an image alone."""
    restored = _restore(outcome)
    own = {"X-Limpid-Restored-Pixels": str(restored.pixels), "X-Limpid-Spread-255": str(restored.spread_255)}
    return Picture("restored.png", encode_png(restored.image), own)


def _restore(outcome: Answered) -> _Restored:
    """Known pixels are the upload's by construction, and not only because their chains stood still."""
    assert outcome.mask is not None
    found = summarise(outcome.result.purified.unsqueeze(1))
    image = to_uint8(found.images[0]).where(outcome.mask, outcome.pixels)
    spread = float(found.spread[0][outcome.mask].square().mean().sqrt()) * LEVELS / 2.0
    return _Restored(image, found.spread[0], int(outcome.mask.sum()), round(spread, 4))


def _restored_image(outcome: Answered) -> RestoredImage:
    restored, (_, height, width) = _restore(outcome), outcome.pixels.shape
    png, map_png = encode_png(restored.image), encode_png(spread_levels(restored.spread))
    return RestoredImage(
        png_base64=base64.b64encode(png).decode("ascii"),
        uncertainty_png_base64=base64.b64encode(map_png).decode("ascii"),
        width=width,
        height=height,
        restored_pixels=restored.pixels,
        spread_255=restored.spread_255,
        mean_steps=mean_steps(outcome.result),
    )
