"""Other libraries' attacks, unchanged, against a Defence: attacks that nobody here wrote, or could soften.

A specification is `library:ATTACK,key=value,...`, for instance `torchattacks:PGD,eps=8/255,steps=20,grad=full`. Values
are TOML, a fraction, or a bare word. Two keys are ours and not the attack's: `grad`, the gradient mode (default bpda),
and `replicates`, how many are averaged in each answer (default: as many as the service averages).

Some attacks ask about images outside [0, 1] (NIFGSM and SPSA of torchattacks, for instance) or need three channels.
No service takes such images, so these attacks are refused rather than changed.
"""

import difflib
import importlib
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from attacks_eval.defence import Defence
from attacks_eval.errors import QuestionError
from attacks_eval.gradients import BPDA, GradMode
from attacks_eval.slots import Task
from attacks_eval.specifications import read_pairs
from attacks_eval.threat_model import ThreatModel, check_unit_range
from models.config import Frozen
from models.pixels import from_unit
from models.purifier import CHAINS_PER_BATCH
from models.streams import Stream

INSTALL = {
    "torchattacks": "pip install --no-deps torchattacks==3.5.1",
    "pyautoattack": "pip install --no-deps pyautoattack==0.2.0",
}
# Of pyautoattack, the attacks whose names these are: APGD with that loss.
PYAUTOATTACK = {"apgd-ce": "ce", "apgd-dlr": "dlr"}
# Arguments that `craft` fills in, and that a specification therefore does not name.
OURS = ("self", "model", "predict", "device", "logger")
BLACK_BOX = ("Square", "OnePixel", "Pixle", "GN", "SPSA")
RADIUS = ("eps", "max_epsilon")
NORMS = {"linf": "Linf", "l2": "L2"}


class ForeignAttack(Frozen):
    """Another library's attack; made by `parse_foreign`.

    Args:
        arguments: of the attack's constructor; the radius, the norm, the seed and the number of classes follow from
            the question unless they are given.
        grad: how the library's backward pass goes through the purifier.
        replicates: averaged in each answer; None for as many as the service averages.
    """

    library: str
    name: str
    arguments: dict[str, Any] = {}
    grad: GradMode = BPDA
    replicates: int | None = Field(default=None, ge=1)

    @property
    def gradients(self) -> bool:
        """Whether the attack uses gradients at all."""
        return self.name not in BLACK_BOX

    @property
    def title(self) -> str:
        """`library:ATTACK`."""
        return f"{self.library}:{self.name}"

    def craft(
        self,
        defence: Defence,
        tasks: Sequence[Task],
        threat: ThreatModel,
        seed: int,
        wanted: Collection[int] | None = None,
    ) -> Iterator[tuple[Task, Tensor]]:
        """Each task with its image [C, H, W] as the attack returned it, projected into the threat model.

        The images are not judged here. A batch's result depends on the seed and on the batch's tasks, so batches are
        cut from all tasks, also where only some images are `wanted` (their numbers; None for all).

        Raises:
            QuestionError: the arguments contradict the threat, or the attack fails with them: asks about images outside
                [0, 1], say, or returns numbers that are not finite.
        """
        size = max(1, CHAINS_PER_BATCH // (self.replicates or defence.served_replicates))
        for first in range(0, len(tasks), size):
            batch = tasks[first : first + size]
            own = [task.number for task in batch if wanted is None or task.number in wanted]
            if own:
                made = zip(batch, self._attack(defence, batch, threat, seed), strict=True)
                yield from (pair for pair in made if pair[0].number in own)

    def _attack(self, defence: Defence, batch: Sequence[Task], threat: ThreatModel, seed: int) -> Tensor:
        images = torch.stack([task.image for task in batch])
        labels = torch.tensor([task.label for task in batch], device=defence.device)
        check_unit_range(images)
        own = int(Stream((seed, "foreign", batch[0].number)).generator().integers(2**31))
        arguments = self._filled(defence, images, threat, own)
        module = defence.as_module(str(self.grad), self.replicates, own)
        try:
            with _own_randomness(own, defence.device), torch.enable_grad():
                found = _build(self.library, self.name)(module, **arguments)(images.to(defence.device), labels)
                attacked = threat.project(found.detach().to(images), images)
            check_unit_range(attacked)
        except (ValueError, TypeError, IndexError, AssertionError, RuntimeError) as error:
            with_what = ", ".join(f"{key}={value}" for key, value in arguments.items()) or "no arguments"
            raise QuestionError(f"{self.title} fails on this defence, with {with_what}: {error}") from error
        return attacked

    def _filled(self, defence: Defence, images: Tensor, threat: ThreatModel, seed: int) -> dict[str, Any]:
        """The arguments, with what the question decides."""
        known, filled = _parameters(self.library, self.name), dict(self.arguments)
        for key in RADIUS:
            if key not in known:
                continue
            if not math.isclose(filled.setdefault(key, threat.radius), threat.radius, rel_tol=1e-6):
                raise QuestionError(f"{self.title}: {key} is {filled[key]:g}, the threat is {threat.name}")
            fixed = "L2" if self.name.endswith("L2") else "Linf"
            norm = filled.setdefault("norm", NORMS[threat.norm]) if "norm" in known else fixed
            if norm != NORMS[threat.norm]:
                raise QuestionError(f"{self.title}: {key} is a radius in {norm}, the threat is {threat.name}")
        if "seed" in known:
            filled.setdefault("seed", seed)
        if "n_classes" in known and "n_classes" not in filled:
            with torch.no_grad():
                filled["n_classes"] = defence.classify(from_unit(images[:1].to(defence.device))).shape[1]
        return filled


def parse_foreign(spec: str) -> ForeignAttack:
    """The attack that a specification names.

    Raises:
        QuestionError: the library is unknown or not installed, or has no such attack or arguments.
    """
    library, _, rest = spec.partition(":")
    if library not in INSTALL:
        raise QuestionError(f"{spec!r}: unknown library {library!r}; known: {', '.join(INSTALL)}")
    name, *pairs = re.split(r",(?![^\[]*\])", rest)  # commas, but not those inside [...]
    known = _names(library)
    if name not in known:
        close = difflib.get_close_matches(name.lower(), [attack.lower() for attack in known], n=4, cutoff=0.5)
        near = [attack for attack in known if attack.lower() in close] or known
        raise QuestionError(f"{library} has no attack {name!r}; the nearest: {', '.join(near)}")
    arguments = read_pairs(spec, pairs)
    grad, replicates = arguments.pop("grad", "bpda"), arguments.pop("replicates", None)
    if replicates is not None and (type(replicates) is not int or replicates < 1):
        raise QuestionError(f"{spec!r}: replicates must be a whole number from 1 on, got {replicates!r}")
    return ForeignAttack(
        library=library,
        name=name,
        arguments=_checked(f"{library}:{name}", _parameters(library, name), arguments),
        grad=GradMode.model_validate(str(grad)),
        replicates=replicates,
    )


def _checked(title: str, known: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, which must be the attack's own and of the kind of their defaults."""
    if unknown := [key for key in arguments if key not in known]:
        raise QuestionError(f"{title} has no argument {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    checked = {}
    for key, value in arguments.items():
        default = 0.0 if key in RADIUS else known[key]
        checked[key] = tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
        if default is not None and _kind(checked[key]) is not _kind(default):
            raise QuestionError(f"{title}: {key} must be of the kind of its default {default!r}, got {value!r}")
    return checked


def _kind(value: object) -> type:
    """Its type, where whole and other numbers are one kind: several libraries' defaults are 1 for 1.0."""
    return float if type(value) is int else type(value)


def _import(library: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise QuestionError(f"{library} cannot be imported ({error}); install it: {INSTALL[library]}") from error


def _names(library: str) -> list[str]:
    """The attacks that need nothing but a model and arguments with defaults."""
    found = _import(library, library)
    if library == "pyautoattack":
        return list(PYAUTOATTACK)
    return [name for name in found.__all__ if inspect.Parameter.empty not in _parameters(library, name).values()]


def _parameters(library: str, name: str) -> dict[str, Any]:
    """The names and defaults of the constructor's arguments, without those in OURS."""
    if library == "pyautoattack":
        made, hidden = _import(library, "pyautoattack.autopgd_base").APGDAttack, {*OURS, "loss", "is_tf_model"}
    else:
        made, hidden = getattr(_import(library, library), name), {*OURS}
    parameters = inspect.signature(made.__init__).parameters
    return {key: parameter.default for key, parameter in parameters.items() if key not in hidden}


def _build(library: str, name: str) -> Callable[..., Callable[[Tensor, Tensor], Tensor]]:
    """(module, **arguments) -> ((images, labels) -> attacked images)."""
    if library == "torchattacks":
        made: Callable[..., Callable[[Tensor, Tensor], Tensor]] = getattr(_import(library, library), name)
        return made
    apgd = _import(library, "pyautoattack.autopgd_base").APGDAttack
    return lambda module, **arguments: apgd(module, loss=PYAUTOATTACK[name], **arguments).perturb


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators that libraries draw from, torch's and numpy's, and put their states back afterwards."""
    numpy_state = np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.random.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
