"""One row an image: what a request of several images is answered about it, or the problem."""

from typing import Any

from models.bundle import Bundle
from service.answer_arguments import with_flags
from service.answers import classified, mean_steps, ood, purified
from service.batch.answering import Item
from service.batch.question import Task
from service.errors import TYPE_PREFIX, RequestError
from service.intake import Answered
from service.parameters import Plan

ANSWERED = 200
Row = dict[str, Any]
"""`index`, `key` and `status`, then the answer's fields or a `problem`. A purified image is `png`, bytes."""


def make_row(task: Task, item: Item, outcome: Answered | RequestError, plan: Plan, bundle: Bundle) -> Row:
    """The row of one image."""
    head = {"index": item.index, "key": item.key}
    if isinstance(outcome, RequestError):
        problem = {"type": TYPE_PREFIX + outcome.slug, "title": outcome.title, "detail": with_flags(outcome.detail)}
        return {**head, "status": outcome.status, "problem": problem}
    if task == "classify":
        return {**head, "status": ANSWERED, **classified(outcome, plan, bundle).model_dump(mode="json")}
    image, (_, height, width) = purified(outcome), outcome.pixels.shape
    return {
        **head,
        "status": ANSWERED,
        "png": image.png,
        "width": width,
        "height": height,
        "distance": image.distance.model_dump(mode="json"),
        "mean_steps": mean_steps(outcome.result),
        "ood": ood(outcome.result, plan, bundle),
    }
