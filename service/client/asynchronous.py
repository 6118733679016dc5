"""The client for programs with an event loop."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Generic, Self

import httpx2

from service.client import questions
from service.client.answers import check_status, transport_errors
from service.client.connection import MOST_EVENT_BYTES, answer_timeout, settings, stream_timeout
from service.client.errors import ClientError, ConnectionLost
from service.client.questions import ATTACK, CLASSIFY, EVENTS, JSON, PURIFY, RESTORE, AnswerT, Image, Question
from service.client.retrying import DEFAULT, Contact, Patience, Retries
from service.demo_schemas import Attacked, AttackOptions
from service.event_schemas import Progress, Queued
from service.options import ClassifyOptions, PurifyOptions, RestoreOptions
from service.restore_schemas import Restoration
from service.schemas import Classification, Classifications, Purification, Purifications
from service.system_schemas import Info


class AsyncJob(Generic[AnswerT]):
    """`Job` for an event loop: `async for event in job`, then `await job.result()`."""

    def __init__(
        self, http: httpx2.AsyncClient, question: Question[AnswerT], retries: Retries, contact: Contact
    ) -> None:
        self._http, self._question = http, question
        self._contact, self._patience = contact, Patience(retries, contact)
        self._events = self._watch()
        self._answer: AnswerT | None = None

    def __aiter__(self) -> AsyncIterator[Queued | Progress]:
        return self._events

    async def result(self) -> AnswerT:
        """The answer, once it is there; raises ClientError, also when the job has ended without one."""
        async for _ in self._events:
            pass
        if self._answer is None:
            raise ConnectionLost("the job was left, or failed, before its result")
        return self._answer

    async def aclose(self) -> None:
        """Stop watching; what is not answered yet never will be."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _watch(self) -> AsyncGenerator[Queued | Progress, None]:
        while self._answer is None:
            try:
                async with aclosing(self._stream()) as events:
                    async for event in events:
                        yield event
            except ClientError as error:
                await asyncio.sleep(self._patience.wait_after(error))

    async def _stream(self) -> AsyncGenerator[Queued | Progress, None]:
        """One try; raises ClientError unless the answer came."""
        request = self._question.request(EVENTS)
        with transport_errors(self._contact):
            async with self._http.stream(**request, timeout=stream_timeout()) as response:
                if response.status_code != 200:
                    await response.aread()
                check_status(response)
                async for sent in httpx2.EventSource(response, MOST_EVENT_BYTES):
                    event = self._question.read_event(sent)
                    if isinstance(event, self._question.answer):
                        self._answer = event
                        return
                    if isinstance(event, Queued | Progress):
                        yield event
        raise ConnectionLost("the stream of events ended before its result")


class AsyncClient:
    """`Client` for an event loop; see there for the arguments."""

    def __init__(
        self, url: str, api_key: str | None = None, *, timeout: float | None = None, retries: Retries = DEFAULT
    ) -> None:
        self._http = httpx2.AsyncClient(**settings(url, api_key))
        self._timeout, self._retries, self._contact = timeout, retries, Contact()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def classify(
        self, image: Image, options: ClassifyOptions = CLASSIFY, *, timeout: float | None = None
    ) -> Classification:
        """See `Client.classify`."""
        return await self._ask(questions.classify(image, options, timeout or self._timeout))

    async def classify_many(
        self, images: Sequence[Image], options: ClassifyOptions = CLASSIFY, *, timeout: float | None = None
    ) -> Classifications:
        """See `Client.classify_many`."""
        return await self._ask(questions.classify_many(images, options, timeout or self._timeout))

    def classify_job(
        self, image: Image, options: ClassifyOptions = CLASSIFY, *, timeout: float | None = None
    ) -> AsyncJob[Classification]:
        """See `Client.classify_job`."""
        return self._job(questions.classify(image, options, timeout or self._timeout))

    async def purify(
        self, image: Image, options: PurifyOptions = PURIFY, *, timeout: float | None = None
    ) -> Purification:
        """See `Client.purify`."""
        return await self._ask(questions.purify(image, options, timeout or self._timeout))

    async def purify_many(
        self, images: Sequence[Image], options: PurifyOptions = PURIFY, *, timeout: float | None = None
    ) -> Purifications:
        """See `Client.purify_many`."""
        return await self._ask(questions.purify_many(images, options, timeout or self._timeout))

    def purify_job(
        self, image: Image, options: PurifyOptions = PURIFY, *, timeout: float | None = None
    ) -> AsyncJob[Purification]:
        """See `Client.purify_job`."""
        return self._job(questions.purify(image, options, timeout or self._timeout))

    async def restore(
        self, image: Image, mask: Image, options: RestoreOptions = RESTORE, *, timeout: float | None = None
    ) -> Restoration:
        """See `Client.restore`."""
        return await self._ask(questions.restore(image, mask, options, timeout or self._timeout))

    def restore_job(
        self, image: Image, mask: Image, options: RestoreOptions = RESTORE, *, timeout: float | None = None
    ) -> AsyncJob[Restoration]:
        """See `Client.restore_job`."""
        return self._job(questions.restore(image, mask, options, timeout or self._timeout))

    async def attack(self, image: Image, options: AttackOptions = ATTACK) -> Attacked:
        """See `Client.attack`."""
        return await self._ask(questions.attack(image, options))

    async def info(self) -> Info:
        """See `Client.info`."""
        return await self._ask(questions.info())

    def _job(self, question: Question[AnswerT]) -> AsyncJob[AnswerT]:
        return AsyncJob(self._http, question, self._retries, self._contact)

    async def _ask(self, question: Question[AnswerT]) -> AnswerT:
        patience = Patience(self._retries, self._contact)
        while True:
            try:
                with transport_errors(self._contact):
                    response = await self._http.request(
                        **question.request(JSON), timeout=answer_timeout(question.timeout)
                    )
                return question.read(response)
            except ClientError as error:
                await asyncio.sleep(patience.wait_after(error))
