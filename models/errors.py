"""What can go wrong in `models`, one class per stage.

LimpidError
├── ConfigError       a recipe or an override that does not describe a run
├── DataError         a dataset that is missing, corrupt or of the wrong shape
├── NetworkError      an unknown architecture, bad constructor arguments or weights that do not fit
├── CheckpointError   a training state that cannot be read, or belongs to another run
├── FolderInUse       a run's folder in which another program is at work
├── TrainingDiverged  a loss or an energy that is no longer finite
├── ChainDiverged     a chain whose energy is no longer finite
└── BundleError       a bundle whose manifest, digests or files are wrong
"""


class LimpidError(Exception):
    """Base of every error that a user of `models` can correct."""


class ConfigError(LimpidError):
    """A recipe, or an override of it, does not describe a run."""


class DataError(LimpidError):
    """A dataset is missing, corrupt or of the wrong shape."""


class NetworkError(LimpidError):
    """An architecture is unknown, or its arguments or weights do not fit."""


class CheckpointError(LimpidError):
    """A training state cannot be read, or belongs to another run."""


class FolderInUse(LimpidError):
    """Another program is at work in a run's folder."""


class TrainingDiverged(LimpidError):
    """A loss or an energy stopped being finite; the message names the update."""


class ChainDiverged(LimpidError):
    """A chain's energy stopped being finite; the message names the chain and the step."""


class BundleError(LimpidError):
    """A bundle's manifest, digests or files are wrong."""
