"""The bundle behind LitServe 0.2.19, as its competent user would serve it: `service-load` runs this in its own process.

    python3.11 -m venv .venv/litserve
    .venv/litserve/bin/pip install -c constraints.txt -e ".[cpu]" litserve==0.2.19

It takes a venv of its own, which `make bench` makes: LitServe brings uvloop, and uvicorn would choose
it for Limpid too.

LitServe batches dynamically: what arrives within `batch_timeout`, up to `max_batch_size` requests, is one batch, and is
answered when its longest chain is done. Each chain leaves the batch at its own length, so that a short one beside a
long one wastes no steps.
"""

import argparse
import socket
from pathlib import Path

import litserve
import torch
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response
from torch import Tensor

from models.bundle import load_bundle
from models.image_files import encode_png
from models.pixels import from_uint8, to_uint8
from models.purifier import CHAINS_PER_BATCH
from service.decoding import decode_image, make_strict

BATCH_TIMEOUT = 0.01
MAX_PIXELS = 4_000_000


class PurifyAPI(litserve.LitAPI):  # type: ignore[misc]
    """POST /purify with a form of `image` and `steps`; answers a PNG."""

    def __init__(self, folder: Path) -> None:
        super().__init__(max_batch_size=CHAINS_PER_BATCH, batch_timeout=BATCH_TIMEOUT, api_path="/purify")
        self._folder = folder

    def setup(self, device: str) -> None:
        """Load the bundle in the worker's process."""
        make_strict()
        self._bundle = load_bundle(self._folder, torch.device(device))

    def decode_request(self, request: Request) -> tuple[Tensor, int]:
        """The form as uint8 [C, H, W] and a number of steps; checked as Limpid checks it."""
        assert isinstance(request, FormData)  # what LitServe makes of an argument that is annotated as a Request
        image, steps = request["image"], request["steps"]
        assert isinstance(image, UploadFile)
        assert isinstance(steps, str)
        pixels = decode_image(image.file.read(), self._bundle.manifest.image, MAX_PIXELS, resize=False)
        return pixels, int(steps)

    def batch(self, inputs: list[tuple[Tensor, int]]) -> tuple[Tensor, list[int]]:
        """Images [B, C, H, W] and each one's number of steps."""
        images, steps = zip(*inputs, strict=True)
        return torch.stack(images), list(steps)

    def predict(self, batch: tuple[Tensor, list[int]]) -> Tensor:
        """The purified images, uint8 [B, C, H, W].

        The longest chains come first, so that those still running are a slice; gathering them would copy.
        """
        images, steps = batch
        defence, manifest = self._bundle.defence, self._bundle.manifest
        preset = manifest.presets[manifest.default_preset]
        order = sorted(range(len(steps)), key=lambda row: -steps[row])
        state, done = from_uint8(images[order]), 0
        for length in sorted(set(steps)):
            running = sum(each >= length for each in steps)
            stretch = preset.model_copy(update={"num_steps": length - done})
            state[:running] = defence.purify(state[:running], stretch)
            done = length
        purified = torch.empty_like(state)
        purified[order] = state
        return to_uint8(purified)

    def unbatch(self, output: Tensor) -> list[Tensor]:
        """One image a request."""
        return list(output)

    def encode_response(self, output: Tensor) -> Response:
        """The image as a PNG."""
        return Response(encode_png(output), media_type="image/png")


def main() -> None:
    """Serve on a free port until a signal."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.litserve_server")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--timeout", type=float, required=True, help="seconds in the queue after which it answers 504")
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]  # LitServe binds by number alone
    print(f"http://127.0.0.1:{port}", flush=True)
    server = litserve.LitServer(PurifyAPI(options.bundle), accelerator="cpu", timeout=options.timeout)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
