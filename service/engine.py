"""The engine: one OS thread owns the model and answers one request after another.

The seam is `await engine.submit(images, params)`. A request that fails, fails alone; when the thread itself dies,
everything that waits for it fails too, and `live` turns false.
"""

import asyncio
import logging
import math
import queue
import secrets
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.bundle import Bundle
from models.langevin import LangevinInfo, Noise, seeded_noise
from models.pixels import from_uint8
from models.purifier import Preset, chain_batches, split_replicates
from service.errors import ChainDivergedError, EngineError, OverloadedError, UnavailableError

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.25
WARM_UP_STEPS = 2


@dataclass(frozen=True)
class Params:
    """How a request is answered; without `classify` the engine only purifies."""

    preset: Preset
    classify: bool = True


@dataclass(frozen=True)
class Result:
    """purified float [R, B, C, H, W]; logits [R, B, K] and the bare classifier's [B, K], all on the CPU."""

    purified: Tensor
    logits: Tensor | None
    undefended: Tensor | None
    queue_seconds: float
    purify_seconds: float
    classify_seconds: float


class _Abandoned(Exception):
    """Nobody waits for the running request any more."""


@dataclass(frozen=True)
class _Job:
    images: Tensor
    params: Params
    future: "Future[Result]" = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)
    submitted: float = field(default_factory=time.perf_counter)


class Engine:
    """Runs a bundle's defence in its own thread.

    Args:
        bundle: the defence, already on `device`; nothing else may use it while the engine runs.
        queue_limit: requests that may wait; one more raises OverloadedError.
        stall_timeout: seconds without a Langevin step or an idle poll after which the engine is not `live`.
    """

    def __init__(
        self, bundle: Bundle, device: torch.device, queue_limit: int = 64, stall_timeout: float = 60.0
    ) -> None:
        self.bundle, self.device = bundle, device
        self._stall_timeout = stall_timeout
        self._queue: queue.Queue[_Job] = queue.Queue(queue_limit)
        self._thread = threading.Thread(target=self._run, name="limpid-engine", daemon=True)
        self._stopping, self._warm = threading.Event(), threading.Event()
        self._lock = threading.Lock()  # orders `submit` and the thread's end: no job is queued after the last drain
        self._closed = False
        self._current: _Job | None = None
        self._heartbeat = time.monotonic()
        self._mean_seconds = 1.0

    def start(self) -> None:
        """Start the thread; `ready` follows once it has warmed up."""
        self._heartbeat = time.monotonic()
        self._thread.start()

    def stop(self, timeout: float = 30.0) -> None:
        """Fail whatever runs or waits with UnavailableError and join the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def live(self) -> bool:
        """Whether the thread runs and has shown a sign of life lately."""
        age = time.monotonic() - self._heartbeat
        return self._thread.is_alive() and not self._closed and age < self._stall_timeout

    @property
    def ready(self) -> bool:
        """Whether a request would be answered now."""
        return self.live and self._warm.is_set() and not self._stopping.is_set()

    def retry_after(self) -> int:
        """Whole seconds, at least 1, until the queue as it is now should be done."""
        return max(1, math.ceil((self._queue.qsize() + 1) * self._mean_seconds))

    def submit(self, images: Tensor, params: Params) -> "asyncio.Future[Result]":
        """Queue uint8 images [B, C, H, W] and await the result; call it with a running event loop.

        Cancelling the future skips a waiting request and ends a running one at its next Langevin step.
        Raises OverloadedError when the queue is full, UnavailableError when the thread has ended.
        """
        job = _Job(images, params)
        with self._lock:
            if self._closed:
                raise UnavailableError("the engine has stopped")
            try:
                self._queue.put_nowait(job)
            except queue.Full as error:
                raise OverloadedError(
                    f"{self._queue.maxsize} requests are waiting already", retry_after=self.retry_after()
                ) from error
        future = asyncio.wrap_future(job.future)
        # A running concurrent Future can not be cancelled, so the thread learns it from the event.
        future.add_done_callback(lambda done: job.abandoned.set() if done.cancelled() else None)
        return future

    def _run(self) -> None:
        try:
            self._warm_up()
            while not self._stopping.is_set():
                self._heartbeat = time.monotonic()
                try:
                    self._current = self._queue.get(timeout=IDLE_SECONDS)
                except queue.Empty:
                    continue
                self._answer(self._current)
                self._current = None
        except BaseException:  # the thread's outermost frame: nobody above would see it
            log.critical("the engine thread died", exc_info=True)
        finally:
            self._close()

    def _close(self) -> None:
        """Refuse new jobs, then fail those that nobody will answer."""
        with self._lock:
            self._closed = True
        failure = UnavailableError("the engine stopped before it could answer")
        if self._current is not None and not self._current.future.done():
            self._current.future.set_exception(failure)
        while not self._queue.empty():
            future = self._queue.get_nowait().future
            if future.set_running_or_notify_cancel():
                future.set_exception(failure)

    def _answer(self, job: _Job) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        started = time.perf_counter()
        try:
            job.future.set_result(self._compute(job, started))
        except (EngineError, _Abandoned) as error:
            job.future.set_exception(error)
        except Exception as error:
            log.exception("a request failed in the engine")
            failure = EngineError("the engine failed on this request; the server's log has the cause")
            failure.__cause__ = error
            job.future.set_exception(failure)
        self._mean_seconds += 0.1 * (time.perf_counter() - started - self._mean_seconds)

    def _compute(self, job: _Job, started: float) -> Result:
        defence, preset = self.bundle.defence, job.params.preset
        images = from_uint8(job.images.to(self.device))
        noise = seeded_noise(torch.Generator(self.device).manual_seed(secrets.randbits(63)))
        with torch.no_grad():
            batches = [self._purify(job, batch, noise) for batch in chain_batches(images, preset.replicates)]
            purified_at = time.perf_counter()
            logits = undefended = None
            if job.params.classify:
                logits = torch.cat([defence.classify(batch).cpu() for batch in batches])
                undefended = defence.classify(images).cpu()
                if not (logits.isfinite().all() and undefended.isfinite().all()):
                    raise EngineError("the classifier's output is not finite for this image")
            purified = torch.cat([batch.cpu() for batch in batches])
        return Result(
            split_replicates(purified, preset.replicates),
            None if logits is None else split_replicates(logits, preset.replicates),
            undefended,
            queue_seconds=started - job.submitted,
            purify_seconds=purified_at - started,
            classify_seconds=time.perf_counter() - purified_at,
        )

    def _purify(self, job: _Job, batch: Tensor, noise: Noise) -> Tensor:
        def after_step(step: int, state: Tensor, info: LangevinInfo) -> None:
            self._heartbeat = time.monotonic()
            if job.abandoned.is_set():
                raise _Abandoned
            if self._stopping.is_set():
                raise UnavailableError("the server is stopping")

        purified = self.bundle.defence.purify(batch, job.params.preset, noise, after_step)
        if not purified.isfinite().all():  # waits for the device, so the timings around it are true
            raise ChainDivergedError(
                f"a chain left the finite numbers within {job.params.preset.num_steps} steps; nothing is returned"
            )
        return purified

    def _warm_up(self) -> None:
        """One short request, so that the first real one finds kernels chosen and memory allocated."""
        shape, preset = self.bundle.manifest.image, self.bundle.manifest.presets[self.bundle.manifest.default_preset]
        images = torch.zeros(1, shape.channels, shape.height, shape.width, dtype=torch.uint8)
        params = Params(preset.model_copy(update={"num_steps": min(preset.num_steps, WARM_UP_STEPS)}))
        result = self._compute(_Job(images, params), time.perf_counter())
        classes = len(self.bundle.manifest.class_names)
        if result.undefended is None or result.undefended.shape[1] != classes:
            raise EngineError(f"the classifier does not have the {classes} classes that the manifest names")
        self._warm.set()
