"""Bundles on the Hugging Face hub: the hub's own mixin around a bundle's folder. Needs the extra `adapters`."""

from pathlib import Path
from typing import Any, Self

import torch

try:
    from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, snapshot_download
except ImportError as error:
    raise ImportError("models.adapters.hub needs huggingface_hub: pip install -e '.[adapters]'") from error

from models.bundle import MANIFEST, MODEL_CARD, load_bundle
from models.device import resolve_device
from models.errors import BundleError
from models.files import replace_file

WANTED = (MANIFEST, MODEL_CARD, "*.safetensors", "*.onnx")
"""What of a repository is downloaded."""
CPU = torch.device("cpu")


class HubBundle(ModelHubMixin):
    """A bundle that the hub can hold: `HubBundle(folder).push_to_hub("me/defence")`, `.from_pretrained("me/defence")`.

    The repository is the bundle's folder, and a README.md that is its model card; every digest is checked when it is
    loaded, and nothing in it can run code.

    Raises:
        BundleError: the folder is no bundle, or a digest is wrong.
    """

    def __init__(self, folder: Path, device: torch.device = CPU) -> None:
        self.bundle = load_bundle(folder, device)
        self._hub_mixin_config = None  # it would be this call's arguments, a path of this machine among them

    def _save_pretrained(self, save_directory: Path) -> None:
        """Copy the files whose digests the manifest holds, then the manifest: a folder that has one is whole."""
        folder = self.bundle.folder
        card = [MODEL_CARD] if (folder / MODEL_CARD).is_file() else []
        try:
            for name in (*self.bundle.manifest.files, *card, MANIFEST):
                replace_file(save_directory / name, (folder / name).read_bytes())
        except OSError as error:
            raise BundleError(f"{folder} can not be copied to {save_directory}: {error}") from error

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        device: str = "cpu",
        **unknown: Any,
    ) -> Self:
        """`device` is a name that `from_pretrained` was given; `model_id` a local folder or a repository."""
        if unknown:
            raise BundleError(f"unknown argument {', '.join(unknown)}; a bundle takes device")
        folder = Path(model_id)
        if not folder.is_dir():
            copy = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=list(WANTED),
            )
            folder = Path(copy)
        return cls(folder, resolve_device(device))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The bundle's own card, under what the hub wants to know."""
        path, manifest = self.bundle.folder / MODEL_CARD, self.bundle.manifest
        text = path.read_text() if path.is_file() else f"# {manifest.name}\n\n{manifest.description}\n"
        data = ModelCardData(
            library_name="limpid",
            pipeline_tag="image-classification",
            tags=["adversarial-robustness", "energy-based-model"],
        )
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")
