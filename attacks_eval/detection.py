"""How well quantities of the defence tell attacked images from clean ones.

| quantity        | of one image                                                                                  |
|-----------------|-----------------------------------------------------------------------------------------------|
| `energy`        | U of the image, before purification                                                           |
| `energy_drop`   | U of the image minus the mean over replicates of U at the chain's end                         |
| `distance_l2`   | how far the purifier moves it: mean over replicates, in [0, 1] pixel units                    |
| `distance_linf` | the same in the L-infinity norm, in 1/255 units                                               |
| `disagreement`  | 1 - the share of replicates that vote for the label of the mean logits                        |
| `margin_spread` | standard deviation over replicates (over R, not R - 1) of the gap between the two best logits |

A higher value is more suspicious, for every one of them: an attacked image is expected to be less likely, to be moved
farther, and to leave the replicates at odds. Where an attack turns that round, the AUROC is below 1/2, and is reported
as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attacks_eval.defence import Defence
from attacks_eval.errors import QuestionError
from attacks_eval.evaluation import DetectionRow
from attacks_eval.gradients import GradMode
from attacks_eval.purifiers import LangevinPurifier, PullBack
from models.evaluation.detection_statistics import auroc, tpr_at_fpr
from models.pixels import distance_l2, distance_linf
from models.purifier import agreement, split_replicates
from models.streams import ChainNoise, Stream


def trace(defence: Defence, images: Tensor, streams: Sequence[Stream], replicates: int) -> dict[str, Tensor]:
    """Each quantity of this module's table, float32 [B] on the CPU, for images [B, C, H, W] in [0, 1].

    The chains are those that the defence answers with. An image's values depend on it, its stream and the number of
    replicates, and not on its neighbours.

    Raises:
        QuestionError: the defence has no energy, or there is no replicate.
    """
    if not isinstance(defence.purifier, LangevinPurifier):
        kind = type(defence.purifier).__name__
        raise QuestionError(f"detection reads the energy of a Langevin chain, and {kind} has none")
    if replicates < 1:
        raise QuestionError(f"detection needs at least 1 replicate, got {replicates}")
    watched = _Watched(defence.purifier)
    logits = replace(defence, purifier=watched).replicate_logits(images, streams, 0, replicates)
    start, end, l2, linf = split_replicates(torch.cat(watched.measured), replicates).unbind(-1)
    best = logits.topk(2, dim=-1).values
    quantities = {
        "energy": start[0],
        "energy_drop": start[0] - end.mean(0),
        "distance_l2": l2.mean(0),
        "distance_linf": linf.mean(0),
        "disagreement": 1.0 - agreement(logits),
        "margin_spread": (best[..., 0] - best[..., 1]).std(0, correction=0),
    }
    return {name: values.float().cpu() for name, values in quantities.items()}


class _Watched:
    """A LangevinPurifier that keeps, for each chain it runs, its energies and how far it went."""

    def __init__(self, purifier: LangevinPurifier) -> None:
        self.purifier, self.num_steps = purifier, purifier.num_steps
        self.measured: list[Tensor] = []

    def run(self, x: Tensor, noise: ChainNoise) -> Tensor:
        """The chains' last states; a row (U before, U after, L2, L-infinity) is kept for each that has a stream."""
        purified, energy = self.purifier.run(x, noise), self.purifier.defence.energy
        with torch.no_grad():
            rows = [energy(x).float(), energy(purified).float(), distance_l2(purified, x), distance_linf(purified, x)]
        self.measured.append(torch.stack(rows, dim=-1)[: len(noise.streams)])
        return purified

    def record(self, x: Tensor, noise: ChainNoise, mode: GradMode) -> tuple[Tensor, PullBack]:
        """Not watched: gradients are the purifier's own."""
        return self.purifier.record(x, noise, mode)


def detection_rows(
    clean: Mapping[str, Tensor], attacked: Mapping[str, Tensor], attack: str, attacker_knows: bool
) -> list[DetectionRow]:
    """A row for each quantity of two traces.

    Args:
        clean, attacked: what `trace` returned, with the same number of replicates; the images need not be the same.
        attack: the name of the attack that made the images of `attacked`.
        attacker_knows: whether the attack saw the purifier: its gradients, or answers of the whole defence. It says
            nothing about the detector: no attack here lowers these quantities on purpose, and one that did would find
            the detector worse than its row.
    """
    if clean.keys() != attacked.keys():
        raise ValueError(f"the traces hold other quantities: {', '.join(clean)}; {', '.join(attacked)}")
    return [
        DetectionRow(
            quantity=name,
            attack=attack,
            attacker_knows=attacker_knows,
            clean_images=len(values),
            attacked_images=len(attacked[name]),
            auroc=round(auroc(values, attacked[name]), 5),
            tpr=round(tpr_at_fpr(values, attacked[name]), 5),
        )
        for name, values in clean.items()
    ]
