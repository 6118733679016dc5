"""The client for programs without an event loop; threads may share one."""

import time
from collections.abc import Generator, Iterator, Sequence
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


class Job(Generic[AnswerT]):
    """A request whose progress can be watched: `for event in job`, then `job.result()`.

    The service keeps no jobs, so a stream that breaks is asked for anew, and its events begin again. The chains of the
    broken one have stopped, as nobody waited for them any more; new ones draw fresh noise, unless the options have a
    seed. Leaving the job, by `with` or `close`, stops its chains at once.
    """

    def __init__(self, http: httpx2.Client, question: Question[AnswerT], retries: Retries, contact: Contact) -> None:
        self._http, self._question = http, question
        self._contact, self._patience = contact, Patience(retries, contact)
        self._events = self._watch()
        self._answer: AnswerT | None = None

    def __iter__(self) -> Iterator[Queued | Progress]:
        return self._events

    def result(self) -> AnswerT:
        """The answer, once it is there; raises ClientError, also when the job has ended without one."""
        for _ in self._events:
            pass
        if self._answer is None:
            raise ConnectionLost("the job was left, or failed, before its result")
        return self._answer

    def close(self) -> None:
        """Stop watching; what is not answered yet never will be."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _watch(self) -> Generator[Queued | Progress, None, None]:
        while self._answer is None:
            try:
                yield from self._stream()
            except ClientError as error:
                time.sleep(self._patience.wait_after(error))

    def _stream(self) -> Generator[Queued | Progress, None, None]:
        """One try; raises ClientError unless the answer came."""
        request = self._question.request(EVENTS)
        with transport_errors(self._contact), self._http.stream(**request, timeout=stream_timeout()) as response:
            if response.status_code != 200:
                response.read()
            check_status(response)
            for sent in httpx2.EventSource(response, MOST_EVENT_BYTES):
                event = self._question.read_event(sent)
                if isinstance(event, self._question.answer):
                    self._answer = event
                    return
                if isinstance(event, Queued | Progress):
                    yield event
        raise ConnectionLost("the stream of events ended before its result")


class Client:
    """Asks one service; its answers are the service's own schemas, its errors a ClientError each.

    Args:
        url: of the service, such as http://127.0.0.1:8000.
        api_key: what `python -m service key` printed.
        timeout: seconds that the service may take for a request that says nothing else; None for its own limit.
        retries: what follows a lost connection and the statuses 429, 502 and 503.

    Raises:
        InputError: an address or a key that can not be used.
    """

    def __init__(
        self, url: str, api_key: str | None = None, *, timeout: float | None = None, retries: Retries = DEFAULT
    ) -> None:
        self._http = httpx2.Client(**settings(url, api_key))
        self._timeout, self._retries, self._contact = timeout, retries, Contact()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def classify(
        self, image: Image, options: ClassifyOptions = CLASSIFY, *, timeout: float | None = None
    ) -> Classification:
        """What the defence says of one image."""
        return self._ask(questions.classify(image, options, timeout or self._timeout))

    def classify_many(
        self, images: Sequence[Image], options: ClassifyOptions = CLASSIFY, *, timeout: float | None = None
    ) -> Classifications:
        """The same of several in one request, each with a result, or a problem, of its own."""
        return self._ask(questions.classify_many(images, options, timeout or self._timeout))

    def classify_job(
        self, image: Image, options: ClassifyOptions = CLASSIFY, *, timeout: float | None = None
    ) -> Job[Classification]:
        """`classify`, with progress."""
        return self._job(questions.classify(image, options, timeout or self._timeout))

    def purify(self, image: Image, options: PurifyOptions = PURIFY, *, timeout: float | None = None) -> Purification:
        """One image after its chain; `.png` is the file."""
        return self._ask(questions.purify(image, options, timeout or self._timeout))

    def purify_many(
        self, images: Sequence[Image], options: PurifyOptions = PURIFY, *, timeout: float | None = None
    ) -> Purifications:
        """Several in one request, each with a result, or a problem, of its own."""
        return self._ask(questions.purify_many(images, options, timeout or self._timeout))

    def purify_job(
        self, image: Image, options: PurifyOptions = PURIFY, *, timeout: float | None = None
    ) -> Job[Purification]:
        """`purify`, with progress."""
        return self._job(questions.purify(image, options, timeout or self._timeout))

    def restore(
        self, image: Image, mask: Image, options: RestoreOptions = RESTORE, *, timeout: float | None = None
    ) -> Restoration:
        """One image, its pixels under the mask's white made anew; `.png` is the file."""
        return self._ask(questions.restore(image, mask, options, timeout or self._timeout))

    def restore_job(
        self, image: Image, mask: Image, options: RestoreOptions = RESTORE, *, timeout: float | None = None
    ) -> Job[Restoration]:
        """`restore`, with progress."""
        return self._job(questions.restore(image, mask, options, timeout or self._timeout))

    def attack(self, image: Image, options: AttackOptions = ATTACK) -> Attacked:
        """One image after PGD on the bare classifier, by a server with `--demo`; `.png` is the file."""
        return self._ask(questions.attack(image, options))

    def info(self) -> Info:
        """What is served, and within which limits."""
        return self._ask(questions.info())

    def _job(self, question: Question[AnswerT]) -> Job[AnswerT]:
        return Job(self._http, question, self._retries, self._contact)

    def _ask(self, question: Question[AnswerT]) -> AnswerT:
        patience = Patience(self._retries, self._contact)
        while True:
            try:
                with transport_errors(self._contact):
                    response = self._http.request(**question.request(JSON), timeout=answer_timeout(question.timeout))
                return question.read(response)
            except ClientError as error:
                time.sleep(patience.wait_after(error))
