"""What can go wrong for a caller of the service.

ClientError
├── InputError       an image, an option, an address or a key that can not be sent
├── ConnectionLost   a connection that broke: another try may find the server again
│   └── Unreachable  none could be made
├── TimedOut         a connection, but no answer in time: the server may still be at work
├── AnswerError      an answer that this version does not understand
└── ServiceProblem   the service answered with a problem document
"""

from service.errors import ServiceError
from service.schemas import Problem


class ClientError(ServiceError):
    """Base of every error that `service.client` raises."""


class InputError(ClientError):
    """An image, an option, an address or a key can not be sent."""


class ConnectionLost(ClientError):
    """There is no connection, or it broke before the whole answer had come."""


class Unreachable(ConnectionLost):
    """No connection could be made: it was refused, or the address leads nowhere."""


class TimedOut(ClientError):
    """No answer came in time."""


class AnswerError(ClientError):
    """The answer is not what this version of the schemas says."""


class ServiceProblem(ClientError):
    """The service refused, or failed; `problem` is what it says of that.

    Args:
        retry_after: seconds after which the service wants to be asked again, when it says.
    """

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(f"{problem.title}: {problem.detail}" if problem.detail else problem.title)
        self.problem, self.retry_after = problem, retry_after
        self.type, self.title, self.status, self.detail = problem.type, problem.title, problem.status, problem.detail
