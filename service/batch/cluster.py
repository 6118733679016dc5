"""A batch run over a Ray cluster: Ray Data hands the parts to actors, one a CPU or GPU, that each hold the bundle.

An actor writes its part itself, so the output folder, the source and the bundle must be the same for every machine: a
network file system. Of what dies, Ray runs the parts again, and a part written twice is the same part.
"""

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from models.ray_cluster import connect, machines
from service.batch.parts import Part
from service.batch.work import Processor, Work
from service.errors import EngineError


def process_on_cluster(work: Work, parts: Sequence[Part], address: str, actors: int | None) -> Iterator[int]:
    """The number of images of each part, as it is written.

    Args:
        actors: None for as many as the cluster has CPUs, or GPUs.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers at `address`.
        EngineError: an actor failed for a reason that is not an image's.
    """
    with connect(address) as ray:
        from ray import data

        data.DataContext.get_current().enable_progress_bars = False
        gpu = work.question.device == "cuda"
        count = actors or machines(ray, "GPU" if gpu else "CPU")
        rows = [{"part": pickle.dumps(part)} for part in parts]
        written = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            PartActor,
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(count, len(rows))),
            num_cpus=1,
            num_gpus=1 if gpu else None,
            fn_constructor_args=(work,),
        )
        try:
            for row in written.iter_rows():
                yield int(row["images"])
        except ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]  # before it, the whole remote traceback
            raise EngineError(f"the cluster did not finish: {last}") from error


class PartActor:
    """What Ray Data runs: one part a call, on one thread or one GPU."""

    def __init__(self, work: Work) -> None:
        torch.set_num_threads(1)
        self._processor = Processor(work)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """Write the part; the images that it has."""
        parts = [pickle.loads(content) for content in batch["part"]]
        return {"images": [part.length for part in self._processor.process(parts)]}
