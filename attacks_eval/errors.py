"""What can go wrong in `attacks_eval`.

LimpidError
└── AttackError
    ├── QuestionError   an attack or an evaluation that makes no sense as asked
    └── ResultError     a result file that is damaged, or answers another question
"""

from models.errors import LimpidError


class AttackError(LimpidError):
    """Base of this package's errors."""


class QuestionError(AttackError):
    """The attack or the evaluation makes no sense as asked."""


class ResultError(AttackError):
    """A result file is damaged, or answers another question."""
