"""What a demonstration shows of one image's chains while they run, and of each when it has ended."""

import base64

from pydantic import BaseModel
from torch import Tensor

from models.image_files import encode_png
from models.pixels import to_uint8
from service.answers import top_predictions
from service.demo_schemas import Preview, PreviewFrame, Vote, Votes
from service.jobs import Ticket
from service.trace import MOST_TRACES


class Watch:
    """The news of a traced ticket, for an event stream."""

    def __init__(self, ticket: Ticket, class_names: tuple[str, ...]) -> None:
        self._ticket, self._names = ticket, class_names
        self._frames, self._energies, self._counted = 0, [0] * len(ticket.traces), False

    def news(self) -> list[tuple[str, BaseModel]]:
        """`preview` when chains have advanced, and `votes` once they have ended."""
        news: list[tuple[str, BaseModel]] = []
        preview = self._preview()
        if preview.frames or any(preview.energies):
            news.append(("preview", preview))
        if self._ticket.future.done() and not self._counted:
            self._counted = True
            news.append(("votes", self._votes()))
        return news

    def _preview(self) -> Preview:
        traces = self._ticket.traces
        frames = traces[0].frames[self._frames :]
        energies = [trace.energies[known:] for trace, known in zip(traces, self._energies, strict=True)]
        self._frames += len(frames)
        self._energies = [known + len(new) for known, new in zip(self._energies, energies, strict=True)]
        pictures = [PreviewFrame(step=frame.step, png_base64=_png(frame.state)) for frame in frames]
        return Preview(frames=pictures, energies=energies)

    def _votes(self) -> Votes:
        result = self._ticket.future.result()
        assert result.logits is not None
        votes = []
        for number, (logits, state) in enumerate(zip(result.logits, result.purified, strict=True)):
            (first,) = top_predictions(logits, self._names, 1, labels_only=False)
            assert first.probability is not None
            picture = _png(state) if number < MOST_TRACES else None
            votes.append(Vote(label=first.label, probability=first.probability, png_base64=picture))
        return Votes(votes=votes)


def _png(state: Tensor) -> str:
    """A state in [-1, 1] as a PNG in base64."""
    return png_base64(to_uint8(state))


def png_base64(pixels: Tensor) -> str:
    """uint8 [C, H, W] as a PNG in base64."""
    return base64.b64encode(encode_png(pixels)).decode("ascii")
