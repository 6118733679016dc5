"""Several engines as one: each owns its device and its copy of the bundle; work goes to the one that is free first."""

from collections.abc import Sequence

import torch

from models.bundle import Bundle
from service.engine import Engine, Observer
from service.jobs import Params, Ticket


class Fleet:
    """What one engine offers, over all of them.

    Args:
        engines: at least one, of the same bundle.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = tuple(engines)

    @property
    def bundle(self) -> Bundle:
        """What every engine runs."""
        return self._engines[0].bundle

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Each engine's device."""
        return tuple(engine.device for engine in self._engines)

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of every engine's quanta."""
        for engine in self._engines:
            engine.observer = observer

    def start(self) -> None:
        """Start every thread."""
        for engine in self._engines:
            engine.start()

    def stop(self) -> None:
        """Stop every thread."""
        for engine in self._engines:
            engine.stop()

    @property
    def live(self) -> bool:
        """Whether all are."""
        return all(engine.live for engine in self._engines)

    @property
    def ready(self) -> bool:
        """Whether all are."""
        return all(engine.ready for engine in self._engines)

    @property
    def rate(self) -> float:
        """Image-steps per second, together."""
        return sum(engine.rate for engine in self._engines)

    @property
    def classification_cost(self) -> int:
        """Image-steps that classifying one image counts as: the dearest engine's."""
        return max(engine.classification_cost for engine in self._engines)

    @property
    def outstanding(self) -> int:
        """Image-steps still to run."""
        return sum(engine.outstanding for engine in self._engines)

    @property
    def slots_active(self) -> int:
        """Chains in the batches."""
        return sum(engine.slots_active for engine in self._engines)

    @property
    def slots_total(self) -> int:
        """Chains that the batches hold at most."""
        return sum(engine.slots_total for engine in self._engines)

    @property
    def queue_depth(self) -> int:
        """Chains that wait for a slot."""
        return sum(engine.queue_depth for engine in self._engines)

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the least lively engine's last sign of life."""
        return max(engine.heartbeat_age for engine in self._engines)

    def submit(
        self,
        image: torch.Tensor,
        params: Params,
        key: str = "",
        deadline: float | None = None,
        seed: int | None = None,
        mask: torch.Tensor | None = None,
    ) -> Ticket:
        """See `Engine.submit`; taken by the engine that will be done with its work first."""
        ready = [engine for engine in self._engines if engine.ready] or self._engines
        free = min(ready, key=lambda engine: engine.outstanding / (engine.rate or 1.0))
        return free.submit(image, params, key, deadline, seed, mask)
