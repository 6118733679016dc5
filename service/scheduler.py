"""Which chains run next: fair between keys, and within a key by deadlines in proportion to length.

A Langevin chain can stop and go on after any step, and its whole state is one image. So the batch is not filled once
and emptied: between two quanta of steps it is chosen anew among all chains, and one that is not chosen keeps its state.

* Between keys: one chain each in turn, until the batch is full. Every chain costs the same in a quantum, so this is
  deficit round robin with packets of one size; which key comes first rotates, so that remainders even out.
* Within a key: the earliest deadline first, where a request's deadline is its arrival + STRETCH x its own length, in
  steps of the batch. A short request overtakes a long one at once; a long one that has waited STRETCH times its length
  is overtaken no more.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterator
from itertools import islice

from service.jobs import Chain, Job

STRETCH = 4.0


class Scheduler:
    """Holds the jobs that have chains to run; used by the engine's thread alone."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._clock = 0
        self._jobs: dict[str, list[Job]] = {}
        self._turns: deque[str] = deque()

    def __iter__(self) -> Iterator[Job]:
        return (job for jobs in self._jobs.values() for job in jobs)

    @property
    def chains(self) -> int:
        """Chains that have steps to run."""
        return sum(len(job.unfinished) for job in self)

    def add(self, job: Job) -> None:
        """Take in a job that has at least one step to run."""
        length = job.params.preset.num_steps * max(1.0, len(job.chains) / self.slots)
        job.virtual_deadline = self._clock + STRETCH * length
        if job.key not in self._jobs:
            self._jobs[job.key] = []
            self._turns.append(job.key)
        insort(self._jobs[job.key], job, key=lambda other: other.virtual_deadline)

    def remove(self, job: Job) -> None:
        """Forget a job, wherever its chains are."""
        self._jobs[job.key].remove(job)
        if not self._jobs[job.key]:
            del self._jobs[job.key]
            self._turns.remove(job.key)

    def choose(self) -> list[Chain]:
        """The chains of the next quantum, at most `slots`."""
        offers = deque(self._offer(key) for key in self._turns)
        chosen: list[Chain] = []
        while offers and len(chosen) < self.slots:
            offer = offers.popleft()
            if (chain := next(offer, None)) is not None:
                chosen.append(chain)
                offers.append(offer)
        self._turns.rotate(-1)
        return chosen

    def ran(self, steps: int) -> None:
        """Tell the clock that the batch has moved on by this many steps."""
        self._clock += steps

    def _offer(self, key: str) -> Iterator[Chain]:
        chains = (chain for job in self._jobs[key] for chain in job.unfinished)
        return islice(chains, self.slots)
