"""What can go wrong in `attacks_eval`.

LimpidError
└── AttackError
    ├── QuestionError   an attack or an evaluation that makes no sense as asked
    ├── DefenceError    a defence whose answers cannot be used
    ├── GradientError   a purifier whose gradients cannot be trusted
    └── ResultError     a result file that is damaged, or answers another question
"""

from models.errors import LimpidError


class AttackError(LimpidError):
    """Base of this package's errors."""


class QuestionError(AttackError):
    """The attack or the evaluation makes no sense as asked."""


class DefenceError(AttackError):
    """The defence's answers are not finite."""


class GradientError(AttackError):
    """A purifier drops its gradients, or a replayed chain is not the one that was run."""


class ResultError(AttackError):
    """A result file is damaged, or answers another question."""
