"""Files through a service, some at a time."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from service.answer_arguments import parse_options, with_flags
from service.cli.replies import Refusal, Reply, Task, read_file
from service.client import AsyncClient, ClassifyOptions, PurifyOptions, ServiceProblem
from service.errors import (
    TYPE_PREFIX,
    BodyTooLargeError,
    ChainDivergedError,
    DeadlineError,
    DecodingError,
    EngineError,
    FormatError,
    TooManyPixelsError,
)
from service.schemas import Classification, Purification

OF_ONE_IMAGE = {
    TYPE_PREFIX + kind.slug
    for kind in (
        *(BodyTooLargeError, ChainDivergedError, DeadlineError, DecodingError, EngineError),
        *(FormatError, TooManyPixelsError),
    )
}
"""Problems that say nothing about the next file."""


async def answer_there(
    task: Task, files: Sequence[Path], options: dict[str, Any], client: AsyncClient, parallel: int
) -> AsyncGenerator[Reply, None]:
    """Each file's reply, in their order.

    Args:
        parallel: requests that are under way at a time.

    Raises:
        ConfigError: an option is unknown or malformed.
        ClientError: for a reason that is not an image's.
    """
    ask: Callable[[bytes], Awaitable[Classification | Purification]]
    if task == "classify":
        ask = partial(client.classify, options=parse_options(ClassifyOptions, options))
    else:
        ask = partial(client.purify, options=parse_options(PurifyOptions, options))
    places = asyncio.Semaphore(parallel)

    async def answer(path: Path) -> Reply:
        async with places:
            try:
                found = await ask(read_file(path))
            except DecodingError as error:
                return Reply(path, Refusal.of(error), {})
            except ServiceProblem as error:
                if error.type not in OF_ONE_IMAGE:
                    raise
                return Reply(path, Refusal(error.status, error.type, error.title, with_flags(error.detail)), {})
        return Reply(path, found, {"preset": found.preset, "steps": found.steps, "bundle": found.bundle})

    tasks = [asyncio.ensure_future(answer(path)) for path in files]
    try:
        for each in tasks:
            yield await each
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
