"""The purifier for the Adversarial Robustness Toolbox (ART): in front of any classifier that its estimators hold."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attacks_eval.defence import Defence
from attacks_eval.errors import QuestionError
from attacks_eval.gradients import GradMode
from attacks_eval.threat_model import check_unit_range
from models.purifier import CHAINS_PER_BATCH
from models.streams import Stream

if TYPE_CHECKING:
    from art.defences.preprocessor.preprocessor import PreprocessorPyTorch


def art_preprocessor(defence: Defence, grad: str = "smooth", seed: int = 0) -> "PreprocessorPyTorch":
    """An ART preprocessor: images [B, C, H, W] in [0, 1] to one purified replicate each, as chains end, unclamped.

    ART's gradients go through it in the mode that `grad` names; among PyTorch estimators and preprocessors the backward
    pass follows the very chains of the forward pass. An answer of the service averages replicates, an ART estimator
    asks once: for what the service answers, give ART `defence.as_module(...)` as the estimator's whole model.

    Args:
        seed: every call draws fresh noise, from a stream of this seed that counts the calls.

    Raises:
        QuestionError: the library is not installed, or the mode is unknown.
    """
    try:
        from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
    except ImportError as error:
        raise QuestionError(f"ART cannot be imported ({error}); install it: pip install -e '.[adapters]'") from error
    mode, stream = GradMode.model_validate(grad), Stream((seed, "preprocessor"))

    class LangevinPreprocessor(PreprocessorPyTorch):  # type: ignore[misc, unused-ignore]
        """Purifies what it is given, in training and in prediction alike."""

        def __init__(self) -> None:
            super().__init__(device_type=defence.device.type, is_fitted=True)
            self._device, self.calls = defence.device, 0

        def forward(self, x: Tensor, y: Any = None) -> tuple[Tensor, Any]:
            """The purified images, and `y` as it came; raises ValueError for images outside [0, 1]."""
            check_unit_range(x)
            self.calls += 1
            names = [stream.child(self.calls, row) for row in range(len(x))]
            parts = [slice(start, start + CHAINS_PER_BATCH) for start in range(0, len(x), CHAINS_PER_BATCH)]
            return torch.cat([defence.purify(x[part], names[part], mode) for part in parts]), y

    return LangevinPreprocessor()
