"""What /metrics tells Prometheus, in seconds and image-steps. Each application has its own registry."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from starlette.requests import ClientDisconnect
from torch import Tensor

from models.pixels import distance_linf, from_uint8, to_uint8
from models.purifier import agreement
from service.errors import DeadlineError, DecodingError, RequestError, UnavailableError
from service.fleet import Fleet
from service.jobs import Result

REQUEST_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120)
STEP_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
LEVELS = (2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 255)

ENDINGS: dict[type[Exception], str] = {
    ClientDisconnect: "disconnect",
    DeadlineError: "deadline",
    UnavailableError: "unavailable",
}


class Metrics:
    """Counts and observations of one application; the engine's thread and the event loop's may both use it."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._http = Counter("ebm_http_requests", "Requests answered", ["route", "code"], registry=registry)
        self._http_seconds = Histogram(
            *("ebm_http_request_duration_seconds", "Until the whole answer was sent", ["route"]),
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self._wait = Histogram(
            "ebm_queue_wait_seconds", "Images waiting for the engine", buckets=REQUEST_SECONDS, registry=registry
        )
        self._occupancy = Histogram(
            "ebm_batch_occupancy", "Share of the batch that is chains, a quantum", buckets=SHARES, registry=registry
        )
        self._step = Histogram(
            "ebm_step_duration_seconds", "One step of the batch", buckets=STEP_SECONDS, registry=registry
        )
        self._steps = Counter("ebm_steps", "Image-steps that were run", registry=registry)
        self._images = Counter("ebm_images", "Images by what became of them", ["outcome"], registry=registry)
        self._rejected = Counter(
            "ebm_rejected", "Requests refused before they were admitted", ["reason"], registry=registry
        )
        self._cancelled = Counter("ebm_cancelled", "Requests ended before their answer", ["reason"], registry=registry)
        self._undecoded = Counter("ebm_image_decode_errors", "Images not decoded", ["reason"], registry=registry)
        self._linf = Histogram(
            "ebm_perturbation_linf", "Largest change of a pixel, in 1/255", buckets=LEVELS, registry=registry
        )
        self._restored = Histogram(
            "ebm_restored_share", "Share of an image's pixels to restore", buckets=SHARES, registry=registry
        )
        self._changed = Counter("ebm_prediction_changed", "Defended and bare answer differ", registry=registry)
        self._disagreement = Histogram(
            "ebm_disagreement", "Share of replicates against the answer", buckets=SHARES, registry=registry
        )

    def watch(self, engine: Fleet) -> None:
        """Export the engines' own numbers, read whenever somebody asks."""
        for name, text, read in (
            ("ebm_queue_depth", "Chains that wait", lambda: engine.queue_depth),
            ("ebm_queue_cost", "Image-steps admitted and not done", lambda: engine.outstanding),
            ("ebm_slots_active", "Chains that run", lambda: engine.slots_active),
            ("ebm_slots_total", "Chains that can run at a time", lambda: engine.slots_total),
            ("ebm_engine_heartbeat_age_seconds", "Since the last sign of life", lambda: engine.heartbeat_age),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)
        model = {"name": engine.bundle.manifest.name, "digest": engine.bundle.digest}
        Info("ebm_model", "The bundle that answers", registry=self.registry).info(model)

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)

    def quantum(self, active: int, bucket: int, steps: int, seconds: float) -> None:
        """The engine ran `steps` steps of `active` chains in a batch of `bucket`."""
        self._occupancy.observe(active / bucket)
        self._step.observe(seconds / steps)
        self._steps.inc(active * steps)

    def answered(self, route: str, code: int, seconds: float) -> None:
        """A request was answered; `route` is a template, never a path that callers choose."""
        self._http.labels(route, str(code)).inc()
        self._http_seconds.labels(route).observe(seconds)

    @contextmanager
    def entering(self) -> Iterator[None]:
        """Count why the request inside, which is not admitted yet, was refused."""
        try:
            yield
        except ClientDisconnect:
            self._cancelled.labels("disconnect").inc()
            raise
        except RequestError as error:
            self._rejected.labels(error.slug).inc()
            raise

    @contextmanager
    def underway(self) -> Iterator[None]:
        """Count why the request inside, which was admitted, ended before its answer."""
        try:
            yield
        except (ClientDisconnect, DeadlineError, UnavailableError) as error:
            self._cancelled.labels(ENDINGS[type(error)]).inc()
            raise

    def failed(self, error: RequestError) -> None:
        """An image got no answer."""
        self._images.labels(error.slug).inc()
        if isinstance(error, DecodingError):
            self._undecoded.labels(error.slug).inc()

    def finished(self, pixels: Tensor, result: Result, mask: Tensor | None = None) -> None:
        """An image, uint8 [C, H, W], went through the engine, to be restored where there is a mask."""
        self._images.labels("answered").inc()
        self._wait.observe(result.queue_seconds)
        if mask is not None:
            self._restored.observe(float(mask.float().mean()))
            return  # what was under the mask says nothing of how far chains move
        purified = from_uint8(to_uint8(result.purified))
        for distance in distance_linf(purified, from_uint8(pixels).expand_as(purified)).tolist():
            self._linf.observe(distance)
        if result.logits is not None and result.undefended is not None:
            self._disagreement.observe(1.0 - float(agreement(result.logits.unsqueeze(1))[0]))
            self._changed.inc(int(result.logits.mean(0).argmax() != result.undefended.argmax()))
