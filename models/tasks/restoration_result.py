"""What restoration is worth: errors of training and test images, beside methods that learned nothing.

An energy that memorised its data would restore training images better than test images (IGEBM, arXiv 1903.08689,
section 4.2). Those are other pictures, so their difference stands beside that of each baseline.
"""

from collections.abc import Mapping

from torch import Tensor

from models.config import Frozen
from models.tasks.image_quality import Mean, difference_of, mean_of, mse, psnr
from models.tasks.restoration import Restored

RESTORED = "restored"


class Quality(Frozen):
    """One method on one split.

    Args:
        mse: of whole images, pixels in [0, 1].
        psnr: in dB.
        behind: PSNR of the energy's answer minus this method's, image by image; None for the energy's own.
    """

    mse: Mean
    psnr: Mean
    behind: Mean | None


class Spread(Frozen):
    """Root mean squares over the restored pixels, in [0, 1]: how far the replicates spread, and how far they err.

    A spread below the error says that the map of uncertainty promises too much.
    """

    spread: float
    error: float


class RestorationResult(Frozen):
    """Every method by split; `memory` is the PSNR of training minus test images, by method."""

    quality: dict[str, dict[str, Quality]]
    memory: dict[str, Mean]
    spread: dict[str, Spread]

    def lines(self) -> list[str]:
        """The table, a line a method and split."""
        rows = [f"{'split':<6} {'method':<10} {'PSNR, dB':<24} {'MSE':<34} restored is better by, dB"]
        for split, methods in self.quality.items():
            rows += [
                f"{split:<6} {name:<10} {each.psnr!s:<24} {each.mse!s:<34} {each.behind or ''}"
                for name, each in methods.items()
            ]
        rows += [f"train - test, {name}: {gap} dB" for name, gap in self.memory.items()]
        rows += [
            f"{split}: where pixels were restored, replicates spread by {255 * each.spread:.1f}/255 and err by "
            f"{255 * each.error:.1f}/255 (root mean squares)"
            for split, each in self.spread.items()
        ]
        return rows


def restoration_result(
    truth: Mapping[str, Tensor], restored: Mapping[str, Restored], others: Mapping[str, Mapping[str, Tensor]]
) -> RestorationResult:
    """Images [N, C, H, W] in [-1, 1] by split, `others` by split and method."""
    ratios: dict[str, dict[str, Tensor]] = {}
    quality: dict[str, dict[str, Quality]] = {}
    for split, images in truth.items():
        methods = {RESTORED: restored[split].images, **others[split]}
        errors = {name: mse(found, images) for name, found in methods.items()}
        ratios[split] = {name: psnr(each) for name, each in errors.items()}
        own = ratios[split][RESTORED]
        quality[split] = {
            name: Quality(
                mse=mean_of(errors[name]),
                psnr=mean_of(ratio),
                behind=None if name == RESTORED else mean_of(own - ratio),
            )
            for name, ratio in ratios[split].items()
        }
    memory = {
        name: difference_of(ratios["train"][name], ratios["test"][name])
        for name in ratios.get("train", {})
        if "test" in ratios
    }
    spreads = {split: _spread(restored[split], images) for split, images in truth.items()}
    return RestorationResult(quality=quality, memory=memory, spread=spreads)


def _spread(restored: Restored, truth: Tensor) -> Spread:
    """A pixel whose replicates agree to the bit was known."""
    guessed = restored.spread > 0.0
    if not guessed.any():
        return Spread(spread=0.0, error=0.0)
    squares = (restored.images - truth).square().mean(1, keepdim=True)
    halves = [0.5 * float(each[guessed].double().mean().sqrt()) for each in (restored.spread.square(), squares)]
    return Spread(spread=halves[0], error=halves[1])
