"""The manifest: everything that a bundle says about itself, but for its weights."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from models.calibration import Calibration
from models.config import Frozen
from models.errors import BundleError
from models.pixels import Normalisation
from models.purifier import Preset


class ImageShape(Frozen):
    """What the defence purifies, in pixels; 1 or 3 channels."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    channels: Literal[1, 3]


class NetworkEntry(Frozen):
    """An architecture that `models.networks` knows, and its constructor arguments."""

    architecture: str
    arguments: dict[str, Any] = {}


class ClassifierEntry(Frozen):
    """The classifier; `network` is None for one that exists only as ONNX, `size` None when it reads the image's."""

    network: NetworkEntry | None
    normalisation: Normalisation
    size: tuple[int, int] | None = None


class PartRecord(Frozen):
    """How one network was made: its resolved recipe, changes to it on the way, cost, and a summary of the log."""

    recipe: dict[str, Any]
    amendments: tuple[dict[str, Any], ...] = ()
    updates: int
    cpu_hours: float
    log: dict[str, dict[str, float]] = {}


class TrainingRecord(Frozen):
    """Where a bundle comes from; `classifier` is None for one that was not trained here."""

    commit: str
    torch: str
    energy: PartRecord
    classifier: PartRecord | None = None


class Manifest(Frozen):
    """Everything about a bundle but its weights.

    `files` maps each file to its SHA-256; `calibration` has an entry for each preset that answers with a suspicion;
    `beside` has baselines of other weights by what they are, on the images and attack of the bundle's own.
    """

    format: Literal[1] = 1
    name: str
    description: str
    image: ImageShape
    class_names: tuple[str, ...]
    energy: NetworkEntry
    classifier: ClassifierEntry
    presets: dict[str, Preset]
    default_preset: str
    files: dict[str, str]
    training: TrainingRecord | None = None
    measured: dict[str, Any] = {}
    beside: dict[str, dict[str, Any]] = {}
    calibration: dict[str, Calibration] = {}

    @model_validator(mode="after")
    def _parts_agree(self) -> "Manifest":
        if self.default_preset not in self.presets:
            raise ValueError(f"default_preset {self.default_preset!r} is not one of {', '.join(self.presets)}")
        given = len(self.classifier.normalisation.mean)
        if given not in (1, self.image.channels):
            raise ValueError(f"classifier.normalisation has {given} channels, image has {self.image.channels}")
        return self

    def preset(self, name: str | None) -> Preset:
        """The preset of that name, or the default one; raises BundleError that lists the known ones."""
        chosen = name or self.default_preset
        if chosen not in self.presets:
            raise BundleError(f"unknown preset {chosen!r}; {self.name} has {', '.join(self.presets)}")
        return self.presets[chosen]

    @property
    def dataset(self) -> str:
        """The dataset that the energy was trained on; raises BundleError when the manifest does not say."""
        if self.training is None:
            raise BundleError(f"{self.name} does not say what it was trained on; name the data with --data")
        name: str = self.training.energy.recipe["data"]["name"]
        return name

    @property
    def digest(self) -> str:
        """SHA-256 of what is served: weights, architectures, presets, classes; not names, history or measurements.

        Calibrations are measurements too: reports name this digest, and a bundle calibrated later keeps it. Values at
        their defaults are left out, so that a new setting does not rename old bundles.
        """
        return self._digest_without()

    @property
    def weights_digest(self) -> str:
        """The same without presets, for measurements that presets are chosen from."""
        return self._digest_without("presets", "default_preset")

    def _digest_without(self, *keys: str) -> str:
        left_out = {"name", "description", "training", "measured", "beside", "calibration", *keys}
        content = self.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def answers(self, result: Mapping[str, Any]) -> bool:
        """Whether a result of `attacks_eval` was measured on these weights, and its presets are this bundle's."""
        measured = {name: row["preset"] for name, row in result.get("presets", {}).items()}
        if "preset_name" in result:
            measured[result["preset_name"]] = result["preset"]
        same = all(self.presets.get(name) == Preset.model_validate(preset) for name, preset in measured.items())
        return same and result.get("weights") == self.weights_digest
