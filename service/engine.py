"""The engine: one OS thread owns one device, and advances the chains of all requests together.

The seam is `engine.submit(image, params)`, which returns a ticket with the result to come. Between two quanta of steps
chains join and leave the batch, jobs are cancelled, and finished ones are classified. A job whose chains leave the
finite numbers fails alone; an exception in a quantum fails the jobs that were in it; when the thread dies, everything
that waits for it fails, and `live` turns false.
"""

import logging
import math
import threading
import time
from collections import deque
from functools import partial
from typing import Protocol

import torch

from models.bundle import Bundle
from models.chain_threads import ChainThreads
from models.gradients import freeze
from models.streams import Stream
from service.errors import SettingsError, UnavailableError
from service.jobs import Job, Params, Result, Ticket, request_stream
from service.profile import measure, time_classifier
from service.slots import Profile, Slots
from service.worker import Turn, Worker

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.25
WARM_UP_STEPS = 2
RATE_WEIGHT = 0.1
"""Weight of the newest quantum in the measured rate."""


class Observer(Protocol):
    """Who wants to know of each quantum; called by the engine's thread."""

    def quantum(self, active: int, bucket: int, steps: int, seconds: float) -> None:
        """`steps` of a batch of `bucket` slots, of which `active` held a chain, took `seconds`."""


class Engine:
    """Runs a bundle's defence in its own thread.

    Args:
        bundle: the defence, already on `device`; nothing else may use it while the engine runs.
        slots: the largest batch; None chooses it from a measurement when the engine starts.
        quantum: seconds between two points where chains join and leave.
        threads: CPU cores that share the chains; by default as many as PyTorch uses.
        stall_timeout: seconds without a quantum or an idle poll after which the engine is not `live`.

    Raises:
        SettingsError: presets of different precision, which one batch can not hold.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: torch.device,
        slots: int | None = None,
        quantum: float = 0.05,
        stall_timeout: float = 60.0,
        threads: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.bundle, self.device, self.observer = bundle, device, observer
        precisions = {preset.precision for preset in bundle.manifest.presets.values()}
        if len(precisions) != 1:
            raise SettingsError(f"one engine runs one precision, the bundle's presets have {', '.join(precisions)}")
        (self._precision,) = precisions
        self._pool = ChainThreads(threads or (1 if device.type == "cuda" else torch.get_num_threads()))
        self._slots_wanted, self._quantum_seconds, self._stall_timeout = slots, quantum, stall_timeout
        self._profile: Profile | None = None
        self._inbox: deque[Job] = deque()
        # Guards the inbox and the sums; tells the thread of new work, and orders `submit` against the thread's end.
        self._changed = threading.Condition()
        self._closed = self._stopping = False
        self.outstanding = self.classification_cost = 0
        self.rate, self.slots_active, self.queue_depth = 0.0, 0, 0
        self._unfinished: set[Job] = set()
        self._heartbeat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="limpid-engine", daemon=True)

    def start(self) -> None:
        """Start the thread; `ready` follows once it has warmed up."""
        self._heartbeat = time.monotonic()
        self._thread.start()

    def stop(self, timeout: float = 30.0) -> None:
        """Fail whatever runs or waits with UnavailableError and join the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the thread's last sign of life."""
        return time.monotonic() - self._heartbeat

    @property
    def live(self) -> bool:
        """Whether the thread runs and has shown a sign of life lately."""
        return self._thread.is_alive() and not self._closed and self.heartbeat_age < self._stall_timeout

    @property
    def ready(self) -> bool:
        """Whether a request would be answered now."""
        return self.live and self._profile is not None and not self._stopping

    @property
    def slots_total(self) -> int:
        """Chains that one batch holds at most; 0 until warm."""
        return self._profile.buckets[-1] if self._profile else 0

    def submit(
        self,
        image: torch.Tensor,
        params: Params,
        key: str = "",
        deadline: float | None = None,
        seed: int | None = None,
        mask: torch.Tensor | None = None,
    ) -> Ticket:
        """Queue one uint8 image [C, H, W]; call it with a running event loop.

        Cancelling the ticket's future frees the job's slots at the next quantum.

        Args:
            key: whose share of the device it uses.
            deadline: time.monotonic() after which the job fails with DeadlineError.
            seed: makes the noise repeatable; by default nobody can know it.
            mask: bool [1, H, W]; chains make the pixels where it is True anew, given the others.

        Raises:
            UnavailableError: the thread has ended.
        """
        job = Job(image, params, key, deadline, request_stream(seed), mask)
        job.future.set_running_or_notify_cancel()  # from now on the engine alone decides how it ends
        with self._changed:
            if self._closed:
                raise UnavailableError("the engine has stopped")
            self._inbox.append(job)
            self._unfinished.add(job)
            self.outstanding += params.cost
            self._changed.notify()
        return Ticket(job)

    def _run(self) -> None:
        try:
            worker = self._warm_up()
            while not self._stopping:
                self._beat()
                for job in self._intake(worker.idle):
                    worker.take(job)
                if not worker.idle:
                    started = time.perf_counter()
                    turn = worker.turn()
                    self._account(turn, worker, time.perf_counter() - started)
                    _deliver(turn)
                    if turn.steps and self.observer is not None:
                        self.observer.quantum(turn.active, turn.bucket, turn.steps, turn.seconds)
        except BaseException:  # the thread's outermost frame: nobody above would see it
            log.critical("the engine thread died", exc_info=True)
        finally:
            self._close()
            self._pool.close()

    def _warm_up(self) -> Worker:
        """Measure the steps, and answer one short job, so that the first real one finds everything chosen."""
        shape, manifest = self.bundle.manifest.image, self.bundle.manifest
        size = (shape.channels, shape.height, shape.width)
        threads = self._pool
        gradient = freeze(self.bundle.defence.energy, self._precision)
        seconds, wanted = self._quantum_seconds, self._slots_wanted
        profile = measure(gradient, size, self.device, threads, seconds, wanted, self._beat)
        worker = Worker(self.bundle, partial(Slots, gradient, size, profile, self.device, threads), self.device)
        preset = manifest.presets[manifest.default_preset]
        params = Params(preset.model_copy(update={"num_steps": min(preset.num_steps, WARM_UP_STEPS)}))
        job = Job(torch.zeros(size, dtype=torch.uint8), params, "", None, Stream(("warm-up",)))
        worker.take(job)
        while not worker.idle:
            self._beat()
            _deliver(worker.turn())
        job.future.result()
        seconds = time_classifier(self.bundle.defence, size, self.device)
        self.classification_cost = math.ceil(seconds * profile.rate)
        self.rate, self._profile = profile.rate, profile
        return worker

    def _beat(self) -> None:
        self._heartbeat = time.monotonic()

    def _intake(self, idle: bool) -> list[Job]:
        """The jobs submitted since the last look; waits for one, a little while, when there is nothing else to do."""
        with self._changed:
            if idle and not self._inbox and not self._stopping:
                self._changed.wait(IDLE_SECONDS)
            jobs = list(self._inbox)
            self._inbox.clear()
            return jobs

    def _account(self, turn: Turn, worker: Worker, seconds: float) -> None:
        """Bring the sums up to date before any future is set: who gets an answer finds its work gone."""
        image_steps = turn.active * turn.steps
        with self._changed:
            self.outstanding -= image_steps
            for job, _ in turn.settled:
                self.outstanding -= job.steps_left
                self._unfinished.discard(job)
            self.slots_active, self.queue_depth = worker.active, worker.waiting
        # A batch that is not full does not say what the device could do.
        if turn.steps and turn.active == self.slots_total:
            self.rate += RATE_WEIGHT * (image_steps / seconds - self.rate)

    def _close(self) -> None:
        """Refuse new jobs, then fail those that nobody will answer."""
        with self._changed:
            self._closed = True
            failed, self._unfinished = self._unfinished, set()
            self.outstanding = 0
        for job in failed:
            job.future.set_exception(UnavailableError("the engine stopped before it could answer"))


def _deliver(turn: Turn) -> None:
    for job, outcome in turn.settled:
        if isinstance(outcome, Result):
            job.future.set_result(outcome)
        else:
            job.future.set_exception(outcome)
