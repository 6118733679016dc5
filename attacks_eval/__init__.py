"""The adversary: threat models, attacks, and reports that do not flatter. Attacks speak [0, 1]."""

from attacks_eval.apgd import APGD
from attacks_eval.attackers import BPDAPGD, Attacker, FullGradPGD
from attacks_eval.defence import Defence
from attacks_eval.evaluator import Evaluator
from attacks_eval.pgd import PGD
from attacks_eval.square import Square
from attacks_eval.threat_model import L2, Linf, ThreatModel

__all__ = [
    "APGD",
    "BPDAPGD",
    "L2",
    "PGD",
    "Attacker",
    "Defence",
    "Evaluator",
    "FullGradPGD",
    "Linf",
    "Square",
    "ThreatModel",
]
