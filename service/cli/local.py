"""Files through a bundle in this process: the service's own decoding, chains and answers, without a server."""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.bundle import load_bundle
from models.manifest import ImageShape
from service.answers import classified, purified_image
from service.batch.answering import Answerer, Item
from service.batch.question import plan_task
from service.cli.replies import Refusal, Reply, Task, read_file
from service.decoding import decode_image, make_strict
from service.errors import DecodingError, RequestError
from service.intake import Answered
from service.jobs import request_stream
from service.settings import Settings

SLOTS = {"cpu": 16, "cuda": 256}
"""Chains that a core, or a GPU, moves together: little is lost where there is only one image."""


def answer_here(
    task: Task, files: Sequence[Path], options: dict[str, Any], seed: int | None, bundle: Path, device: torch.device
) -> Generator[Reply, None, None]:
    """Each file's reply, in their order.

    Args:
        seed: of every image's noise, as the service's; None for noise that nobody can know.

    Raises:
        ConfigError: an option is unknown, malformed or out of bounds.
        BundleError: the bundle can not be used.
        EngineError: for a reason that is not an image's.
    """
    make_strict()
    loaded = load_bundle(bundle, device)
    manifest, resize = loaded.manifest, options.get("resize", False)
    plan = plan_task(task, options, manifest)
    steps = plan.params.preset.num_steps
    context: dict[str, str | int] = {"preset": plan.preset_name, "steps": steps, "bundle": loaded.digest}
    answerer = Answerer(loaded, plan, lambda _: request_stream(seed), SLOTS[device.type], device)
    items = (_item(number, path, manifest.image, resize) for number, path in enumerate(files))
    try:
        for number, outcome in _in_order(answerer.answers(items)):
            if isinstance(outcome, RequestError):
                yield Reply(files[number], Refusal.of(outcome), {})
                continue
            say = classified if task == "classify" else purified_image
            yield Reply(files[number], say(outcome, plan, loaded), context)
    finally:
        answerer.close()


def _item(number: int, path: Path, shape: ImageShape, resize: bool) -> Item:
    image: Tensor | RequestError
    try:
        image = decode_image(read_file(path), shape, Settings().max_pixels, resize)
    except DecodingError as error:
        image = error
    return Item(0, number, str(path), image)


def _in_order(answers: Iterator[tuple[Item, Answered | RequestError]]) -> Iterator[tuple[int, Answered | RequestError]]:
    """The outcomes by their items' numbers: images whose chains settle early end before others."""
    early: dict[int, Answered | RequestError] = {}
    awaited = 0
    for item, outcome in answers:
        early[item.index] = outcome
        while awaited in early:
            yield awaited, early.pop(awaited)
            awaited += 1
