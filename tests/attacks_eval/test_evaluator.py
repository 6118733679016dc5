"""Whole evaluations: defences broken on purpose, resumption, monotony, and the command on the digits bundle."""

import html
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from attacks_eval.__main__ import main
from attacks_eval.added import parse_added
from attacks_eval.attackers import BPDAPGD, FullGradPGD
from attacks_eval.certify import CertifyConfig
from attacks_eval.defence import Defence
from attacks_eval.errors import GradientError, QuestionError, ResultError
from attacks_eval.evaluation import Evaluation
from attacks_eval.evaluator import About, Evaluator
from attacks_eval.gradients import BPDA, FULL
from attacks_eval.pgd import PGD
from attacks_eval.plans import (
    CertifyPlan,
    CurvePlan,
    Plan,
    PlannedAttack,
    blind,
    fixed_randomness,
    pgd,
    square,
    transfer_from,
)
from attacks_eval.purifiers import AutogradPurifier
from attacks_eval.threat_model import L2, Linf
from models.bundle import Bundle
from models.data import ImageDataset
from models.errors import ConfigError
from models.noise import Noise
from models.pixels import Normalisation, from_uint8, to_unit
from models.purifier import Preset, PurifiedClassifier
from tests.attacks_eval.searching import SHAPE, WEIGHTS, linear, on_levels
from tests.conftest import ZOO

IMAGES = 12
SMALL = Plan(
    name="small",
    images=IMAGES,
    attacks=(
        *blind(2, 2),
        transfer_from("bare", 10),
        pgd("bpda-pgd", 8, 4, BPDA),
        pgd("full-pgd", 8, 4, FULL),
        square(60, 1),
        fixed_randomness(8),
    ),
    check_images=4,
)


def greys(margin: float) -> tuple[Tensor, Tensor]:
    """Images of both classes of `linear`, at random, each with a score of `margin` |w|_1 for its class."""
    noise = 0.2 * torch.randn(IMAGES, 48, generator=torch.Generator().manual_seed(1))
    sign = torch.where(torch.arange(IMAGES) % 2 == 0, 1.0, -1.0)
    along = (sign * margin * WEIGHTS.abs().sum() - noise @ WEIGHTS)[:, None] * WEIGHTS / WEIGHTS.square().sum()
    return ((noise + along + 1) / 2).clamp(0, 1).view(IMAGES, *SHAPE), (sign > 0).long()


def evaluate(defence: Defence, plan: Plan = SMALL, margin: float = 0.03) -> Evaluation:
    return Evaluator(defence, Linf(8 / 255), plan).run(*greys(margin))


def fired(evaluation: Evaluation) -> set[str]:
    return {indicator.name for indicator in evaluation.indicators if indicator.fired}


def quantised(x: Tensor, noise: Noise) -> Tensor:
    return torch.round(x * 20) / 20


def test_a_quantiser_masks_gradients_and_bpda_sees_through_it() -> None:
    """Its gradient is zero: the full attack is lost, BPDA is not, and the indicators say why."""
    evaluation = evaluate(Defence(AutogradPurifier(quantised), linear))
    rows = {attack.name: attack for attack in evaluation.attacks}
    assert rows["bpda-pgd"].statistics.mean_logit.correct == 0
    assert rows["full-pgd"].statistics.mean_logit.correct > 6
    assert "zero-gradient" in fired(evaluation)
    assert evaluation.worst_case.correct == 0


def test_a_classifier_without_gradients_falls_to_black_box_attacks_and_the_indicator_says_so() -> None:
    """Hard steps of the score, margin kept: no gradient, but Square sees the score move."""

    def steps(z: Tensor) -> Tensor:
        return torch.round(linear(z) * 3) / 3 + 0.0 * linear(z)

    plan = SMALL.model_copy(update={"attacks": (*SMALL.attacks[:-2], square(400, 1))})
    evaluation = evaluate(Defence(AutogradPurifier(lambda x, noise: x), steps), plan, margin=0.02)
    assert {"zero-gradient", "black-box-wins", "unbounded-survivors"} <= fired(evaluation)
    rows = {attack.name: attack for attack in evaluation.attacks}
    assert rows["bpda-pgd"].statistics.mean_logit.correct > rows["square"].left


def test_random_logits_are_not_taken_for_robustness() -> None:
    """Noise on the logits hides the gradient's sign in one draw; the mean sees it, and the indicators see the noise."""

    def loud(x: Tensor, noise: Noise) -> Tensor:
        return x + 3.0 * noise(x)

    evaluation = evaluate(Defence(AutogradPurifier(loud), linear, served_replicates=4), margin=0.1)
    assert "random-answers" in fired(evaluation)
    assert evaluation.clean.single < evaluation.clean.mean_logit.accuracy


def test_a_detached_purifier_is_rejected() -> None:
    with pytest.raises(GradientError, match="detaches"):
        evaluate(Defence(AutogradPurifier(lambda x, noise: 0.9 * x.detach()), linear))


def test_an_honest_linear_defence_fires_nothing_about_gradients_and_meets_its_closed_form() -> None:
    """Worst case in closed form: broken exactly when the margin is below 2 eps |w|_1 (0.0627 |w|_1 at 8/255)."""
    for margin, expected in ((0.03, 0), (0.15, IMAGES)):
        evaluation = evaluate(Defence(AutogradPurifier(lambda x, noise: x + 0.0 * noise(x)), linear), margin=margin)
        assert evaluation.worst_case.correct == expected
        assert not fired(evaluation) & {"zero-gradient", "flat-energy", "bpda-misleads", "unbounded-survivors"}


def test_doubling_the_budget_never_raises_accuracy_and_certificates_stay_below_the_truth() -> None:
    curves = CurvePlan(images=IMAGES, attack=PGD(steps=6, eot=2, loss="margin"), budgets=(0.5, 1, 2, 4))
    certify = CertifyPlan(images=6, config=CertifyConfig(sigma=0.1, selection=20, estimation=200))
    plan = SMALL.model_copy(update={"attacks": SMALL.attacks[2:4], "curves": curves, "certify": certify})
    evaluation = evaluate(Defence(AutogradPurifier(lambda x, noise: x), linear), plan, margin=0.1)
    counts = [point.accuracies["robust"].correct for point in evaluation.curves[0].points]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == IMAGES
    assert counts[-1] == 0  # 0.1 |w|_1 is broken from 12.75/255 on
    assert counts[2] == IMAGES
    assert evaluation.certification is not None
    # The L2 distance to the boundary, in [0, 1] units, is margin |w|_1 / (2 |w|_2).
    truth = 0.1 * float(WEIGHTS.abs().sum() / WEIGHTS.norm()) / 2
    certified = [point.radius for point in evaluation.certification.points if point.accuracy.correct]
    assert 0.3 * truth < max(certified) <= truth


@pytest.fixture(scope="module")
def digits(digits_test: ImageDataset) -> tuple[Tensor, Tensor]:
    return to_unit(from_uint8(digits_test.images[:IMAGES])).clamp(0, 1), digits_test.labels[:IMAGES]


def digits_evaluator(bundle: Bundle, folder: Path | None, resume: bool = False, workers: int = 1) -> Evaluator:
    plan = SMALL.model_copy(update={"detection_images": 6})
    defence = Defence.of(bundle.defence, bundle.manifest.presets["fast"])
    about = About(weights=bundle.manifest.weights_digest)
    return Evaluator(defence, Linf(48 / 255), plan, folder=folder, resume=resume, workers=workers, about=about)


def comparable(evaluation: Evaluation) -> dict[str, object]:
    """Without what a second run may change: costs."""
    table = evaluation.model_dump(exclude={"seconds", "image_steps", "backward_steps"})
    for attack in table["attacks"]:
        for key in ("seconds", "image_steps", "backward_steps"):
            del attack[key]
    return table


def test_a_run_that_was_cut_anywhere_resumes_to_the_same_result(
    digits_bundle: Bundle, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    whole = digits_evaluator(digits_bundle, tmp_path / "whole").run(*digits)
    lines = (tmp_path / "whole" / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    for cut in (len(lines) // 3, len(lines) - 20):
        folder = tmp_path / str(cut)
        folder.mkdir()
        # What a kill leaves: some whole lines, half a line, and images beyond the last line.
        (folder / "ledger.jsonl").write_bytes(b"".join(lines[:cut]) + lines[cut][:30])
        shutil.copy(tmp_path / "whole" / "adversarial.bin", folder)
        again = digits_evaluator(digits_bundle, folder, resume=True, workers=2).run(*digits)
        assert comparable(again) == comparable(whole)
    with pytest.raises(ResultError, match="--resume"):
        digits_evaluator(digits_bundle, tmp_path / "whole").run(*digits)


def test_the_shipped_energy_is_found_out_to_be_blind_and_smooth_takes_its_place(
    digits_bundle: Bundle, digits: tuple[Tensor, Tensor]
) -> None:
    evaluation = digits_evaluator(digits_bundle, None).run(*digits)
    assert {"flat-energy", "bpda-misleads"} <= fired(evaluation)
    assert "blind" in evaluation.gradient_note
    names = [attack.name for attack in evaluation.attacks]
    assert "smooth-pgd" in names
    assert not any(name.startswith("full") for name in names)
    done = {item.item: item.done for item in evaluation.checklist}
    assert done["More than one gradient for a defence that is hard to differentiate"]
    assert not done["Targeted attacks"]
    assert {row.quantity for row in evaluation.detection} >= {"energy", "energy_drop", "disagreement"}
    robust = sum(image.clean.right and not image.all_broken_by for image in evaluation.image_results)
    assert evaluation.worst_case.correct == robust
    assert evaluation.attacks[-2].left == robust  # the last row is the check with frozen noise


def test_an_attack_added_to_a_finished_evaluation_changes_every_number_that_it_must(tmp_path: Path) -> None:
    """Rounded verdicts and traces belong to the image that was kept, not to its number."""
    blind_only = SMALL.model_copy(update={"attacks": SMALL.attacks[:2]})
    defence = Defence(AutogradPurifier(lambda x, noise: x + 0.0 * noise(x)), linear)
    about = About(weights="a linear defence")
    greyed = greys(0.03)
    first = Evaluator(defence, Linf(8 / 255), blind_only, folder=tmp_path, about=about).run(*greyed)
    assert first.worst_case.correct == first.worst_case_rounded.correct == IMAGES
    strong = [parse_added("limpid:PGD,steps=8,eot=2,grad=bpda")]
    more = Evaluator(defence, Linf(8 / 255), blind_only, folder=tmp_path, about=about, resume=True, added=strong)
    second = more.run(*greyed)
    assert second.worst_case.correct == second.worst_case_rounded.correct == 0
    assert "rounding-saves" not in fired(second)


def test_an_image_that_breaks_only_once_rounded_is_broken_in_the_worst_case() -> None:
    """One step of 0.6 levels, of which a margin of 0.83 levels holds out; a file makes a whole level of it."""
    attack = PGD(steps=1, attack_step=0.6, random_start=False)
    planned = PlannedAttack(name="weak", title="weak", knowledge="white box", attack=attack)
    plan = SMALL.model_copy(update={"attacks": (planned,)})
    defence = Defence(AutogradPurifier(lambda x, noise: x + 0.0 * noise(x)), linear)
    evaluation = Evaluator(defence, Linf(8 / 255), plan).run(*on_levels([0.0065, 0.2]))
    assert evaluation.attacks[0].statistics.mean_logit.correct == 2
    assert evaluation.worst_case.correct == evaluation.worst_case_rounded.correct == 1
    assert evaluation.confusion == [[0, 0], [1, 1]]
    assert sum(row.robust.correct for row in evaluation.classes) == 1
    assert any(note.startswith("1 of the images that no attack broke") for note in evaluation.notes)
    assert evaluation.gallery == [0, 1]


def test_only_an_identified_defence_can_be_resumed(tmp_path: Path) -> None:
    defence = Defence(AutogradPurifier(lambda x, noise: x), linear)
    with pytest.raises(QuestionError, match="weights"):
        Evaluator(defence, folder=tmp_path, resume=True).run(*greys(0.1))


def test_attacks_of_another_library_do_not_trouble_the_indicators() -> None:
    defence = Defence(AutogradPurifier(lambda x, noise: x + 0.0 * noise(x)), linear)
    added = [parse_added("torchattacks:PGD,steps=8")]
    evaluation = Evaluator(defence, Linf(8 / 255), SMALL, added=added).run(*greys(0.055))
    assert not fired(evaluation) & {"loss-stuck", "unfinished"}
    losses = {item.item: item.evidence for item in evaluation.checklist}["Several losses"]
    assert losses == "ce"


def test_the_same_attack_twice_is_refused() -> None:
    defence = Defence(AutogradPurifier(lambda x, noise: x), linear)
    added = [parse_added("limpid:PGD,steps=2"), parse_added("limpid:PGD,steps=2")]
    with pytest.raises(QuestionError, match="run twice"):
        Evaluator(defence, Linf(8 / 255), SMALL, added=added).run(*greys(0.1))


def test_an_added_attack_on_survivors_comes_last_and_sees_what_the_plan_left() -> None:
    """The plan's one step of half the budget breaks the near image; the added attack is left the far ones."""
    half = PGD(steps=1, attack_step=4.0, random_start=False)
    planned = PlannedAttack(name="weak", title="weak", knowledge="white box", attack=half)
    plan = SMALL.model_copy(update={"attacks": (planned,)})
    defence = Defence(AutogradPurifier(lambda x, noise: x + 0.0 * noise(x)), linear)
    added = [parse_added("limpid:PGD,steps=8,on=survivors")]
    near, middle, far = greys(0.01), greys(0.05), greys(0.3)
    images, labels = (torch.cat([each[part][:1] for each in (near, middle, far)]) for part in (0, 1))
    evaluation = Evaluator(defence, Linf(8 / 255), plan, added=added).run(images, labels)
    assert [row.name for row in evaluation.attacks] == ["weak", "limpid:PGD,steps=8,on=survivors"]
    assert [row.left for row in evaluation.attacks] == [2, 1]
    assert evaluation.attacks[1].attacked == 2


def test_an_added_attack_is_on_all_images_or_on_survivors() -> None:
    with pytest.raises(ConfigError, match=r"on: Input should be 'all' or 'survivors', got 'some'"):
        parse_added("limpid:PGD,steps=2,on=some")


def test_in_l2_the_closed_form_holds_too() -> None:
    """The distance to the boundary is margin |w|_1 / (2 |w|_2) in [0, 1] units."""
    truth = 0.1 * float(WEIGHTS.abs().sum() / WEIGHTS.norm()) / 2
    defence = Defence(AutogradPurifier(lambda x, noise: x + 0.0 * noise(x)), linear)
    plan = SMALL.model_copy(update={"attacks": SMALL.attacks[:4]})
    for factor, expected in ((0.9, IMAGES), (1.15, 0)):
        evaluation = Evaluator(defence, L2(factor * truth), plan).run(*greys(0.1))
        assert evaluation.worst_case.correct == expected
        assert all(
            image.distance is not None and image.distance <= 255 * factor * truth + 0.01
            for image in evaluation.image_results
        )


def test_an_energy_whose_twin_is_not_smooth_either_is_refused(digits_test: ImageDataset) -> None:
    class Functional(torch.nn.Module):
        """A piecewise-linear energy that hides its activation from the twin."""

        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(1, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.leaky_relu(self.first(x)).flatten(1).sum(1)

    preset = Preset(num_steps=2, step_size=0.05, temperature=0.01, replicates=1)
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    defence = PurifiedClassifier(Functional(), classifier, Normalisation(mean=(0.5,), std=(0.5,)), preset)
    images = to_unit(from_uint8(digits_test.images[:2])).clamp(0, 1)
    with pytest.raises(GradientError, match="twin is too"):
        Evaluator(defence, preset=SMALL).run(images, digits_test.labels[:2])


def test_the_field_s_idiom(digits_bundle: Bundle, digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits[0][:4], digits[1][:4]
    attack = BPDAPGD(digits_bundle.defence, eps=40 / 255, alpha=8 / 255, steps=3, eot=2)
    assert "bpda" in repr(attack)
    assert "steps=3" in repr(attack)
    adversarial = attack(images, labels)
    assert float((adversarial - images).abs().max()) <= 40 / 255 + 1e-6
    assert torch.equal(attack(images[:2], labels[:2]), adversarial[:2])
    with pytest.warns(UserWarning, match="smooth"):
        FullGradPGD(digits_bundle.defence, eps=40 / 255, steps=1, eot=1)(images[:1], labels[:1])
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        attack(images * 255, labels)
    with pytest.raises(QuestionError, match="one label an image"):
        attack(images, labels[:2])
    with pytest.raises(ValueError, match="fraction"):
        BPDAPGD(digits_bundle.defence, eps=8)


def test_the_full_suite_on_the_digits_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every phase of `quick` through the command, with added attacks and a second bundle; then its files."""
    out, bundle = tmp_path / "run", str(ZOO / "digits-midrun")
    command = ["run", "--bundle", bundle, "--defence", "fast", "--preset", "quick", "--budget", "40", "--images", "6"]
    command += ["--attack", "torchattacks:PGD,steps=3", "--attack", "limpid:PGD,steps=3,eot=2,grad=truncated:5"]
    command += ["--transfer-from", bundle, "--set", "curves.images=4", "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "worst case" in said
    result = Evaluation.model_validate_json((out / "result.json").read_text())
    assert (result.images, result.plan_name) == (6, "quick*")
    names = [attack.name for attack in result.attacks]
    assert names[0].startswith("torchattacks:PGD")
    assert names[1] == "limpid:PGD,steps=3,eot=2,grad=truncated:5"
    assert {"transfer-second", "transfer-bare", "bpda-pgd", "smooth-pgd", "smooth-apgd", "square"} <= set(names)
    counts = [point.accuracies["robust"].correct for point in result.curves[0].points]
    assert counts == sorted(counts, reverse=True)
    least = min(a.statistics.mean_logit.correct for a in result.attacks if a.on == "all" and not a.fixed_randomness)
    assert result.worst_case.correct <= least <= result.clean.mean_logit.correct
    saved = np.load(out / "adv.npz")
    assert np.abs(saved["adversarial"] - saved["clean"]).max() <= 40 / 255 + 1e-6
    levels = np.abs(saved["adversarial_uint8"].astype(int) - np.rint(saved["clean"] * 255).astype(int))
    assert levels.max() <= 40
    page = (out / "report.html").read_text()
    assert all(html.escape(attack.name) in page for attack in result.attacks)
    assert main(["compare", str(out), str(out), "--out", str(tmp_path / "c.html")]) == 0


def test_a_folder_that_holds_an_evaluation_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["run", "--bundle", str(ZOO / "digits-midrun"), "--defence", "fast", "--preset", "smoke"]
    command += ["--chain", "num_steps=5", "--images", "2", "--out", str(out)]
    assert main(command) == 0
    before = (out / "result.json").read_bytes()
    assert json.loads(before)["preset"]["num_steps"] == 5
    assert json.loads(before)["preset_name"] == "fast*"
    assert main(command) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*command, "--resume", "--seed", "1"]) == 2
    assert "seed" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert json.loads((out / "result.json").read_bytes())["worst_case"] == json.loads(before)["worst_case"]
    assert main(["report", str(out)]) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--attack", "torchattacks:PDG"], "PGD"),
        (["--attack", "limpid:PDG"], "PGD, APGD, Square"),
        (["--attack", "limpid:PGD,grad=exact"], "known: bpda"),
        (["--chain", "num_steps=-1"], "num_steps"),
        (["--transfer-from", str(ZOO / "cifar10-midrun")], "images or classes"),
        (["--set", "images=0"], "images"),
        (["--budget", "-1"], "budget"),
        (["--defence", "fastest"], "fast, balanced, strong"),
    ],
)
def test_bad_questions_are_refused_by_name(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--bundle", str(ZOO / "digits-midrun"), "--preset", "smoke", "--out", str(tmp_path / "x")]
    assert main([*command, *arguments]) == 2
    assert complaint in capsys.readouterr().err
