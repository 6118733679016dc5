"""Attacks that a command adds to a plan: `limpid:APGD,grad=truncated:25,restarts=3`, or another library's.

One of ours attacks all images, and with `on=survivors` those that the whole plan left.
"""

from attacks_eval.apgd import APGD
from attacks_eval.errors import QuestionError
from attacks_eval.evaluation import Knowledge
from attacks_eval.foreign import ForeignAttack, parse_foreign
from attacks_eval.pgd import PGD
from attacks_eval.plans import PlannedAttack
from attacks_eval.random_search import Corners, RandomNoise
from attacks_eval.specifications import read_pairs
from attacks_eval.square import Square
from models.config import validate

OWN: dict[str, type[PGD | APGD | Square | RandomNoise | Corners]] = {
    kind.__name__: kind for kind in (PGD, APGD, Square, RandomNoise, Corners)
}
KNOWLEDGE: dict[str, Knowledge] = {"PGD": "white box", "APGD": "white box", "Square": "black box"}


def parse_added(spec: str) -> PlannedAttack | ForeignAttack:
    """One of ours with any of its parameters, or an attack of torchattacks or pyautoattack.

    Raises:
        QuestionError: an unknown library or attack. ConfigError: wrong parameters of ours.
    """
    library, _, rest = spec.partition(":")
    if library != "limpid":
        return parse_foreign(spec)
    name, *pairs = rest.split(",")
    if name not in OWN:
        raise QuestionError(f"limpid has no attack {name!r}; known: {', '.join(OWN)}")
    arguments = read_pairs(spec, pairs)
    planned = {
        "name": spec,
        "title": spec,
        "knowledge": KNOWLEDGE.get(name, "none"),
        "on": arguments.pop("on", "all"),
        "attack": validate(OWN[name], arguments, f"--attack {spec}"),
    }
    return validate(PlannedAttack, planned, f"--attack {spec}")
