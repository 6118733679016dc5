"""The report of a small evaluation made by hand: what it says first, what it holds, and that it stands alone."""

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attacks_eval.errors import ResultError
from attacks_eval.evaluation import Evaluation
from attacks_eval.report.compare import write_comparison
from attacks_eval.report.gallery import difference, read_adversarial
from attacks_eval.report.markdown import escape
from attacks_eval.report.paired import difference_interval, mcnemar
from attacks_eval.report.plots import steps
from attacks_eval.report.words import bpda_alone, verdict
from attacks_eval.report.write import build_report, read_evaluation, write_report
from attacks_eval.shares import share
from attacks_eval.summary import robust
from models.pages.wording import amount, duration
from tests.attacks_eval.sample_evaluation import TITLES, sample, write_sample
from tests.html_page import Page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def markdown(folder: Path) -> str:
    return (folder / "report.md").read_text()


def visible(html: str) -> str:
    return " ".join("".join(Page(html).texts).split())


def test_the_worst_number_comes_before_any_higher_one(html: str, markdown: str) -> None:
    for text in (visible(html), markdown):
        shares = [float(number) for number in re.findall(r"([\d.]+) %", text)]
        assert shares[0] == 7.5
        assert text.index("leaves 7.5 % [2.6, 19.9] of 40 images right (clean: 85.0 %)") < text.index("45.0 %")
        assert "with changes of at most L-infinity 8/255" in text
        assert text.index("BPDA alone") < text.index("What was measured")


def test_every_attack_has_its_row(html: str, markdown: str) -> None:
    rows = [" ".join(row.split()) for row in Page(html).rows]
    for attack in sample().attacks:
        rule = f"{100 * attack.statistics.mean_logit.accuracy:.1f} %"
        found = [row for row in rows if row.startswith(f"{attack.title} ({attack.name}, {attack.knowledge})")]
        assert any(rule in row and f"of {attack.queries:,}" in row for row in found)
        lines = [line for line in markdown.splitlines() if line.startswith(f"| {attack.title} ({attack.name}")]
        assert any(rule in line for line in lines)


def test_the_clean_row_is_first_and_frozen_noise_is_apart(markdown: str) -> None:
    table = markdown[markdown.index("| attack | on images") :].splitlines()
    assert table[2].startswith("| clean | 40 | 85.0 % [70.9, 92.9] |")
    apart = next(index for index, line in enumerate(table) if "noise frozen: not part of the worst case" in line)
    assert [line.startswith(f"| {TITLES['fixed-randomness']}") for line in table[apart - 1 : apart + 2]] == [
        False,
        False,
        True,
    ]


def test_fired_indicators_come_first_and_are_red(html: str) -> None:
    section = html[html.index('id="indicators"') : html.index('id="gallery"')]
    section = section[section.index("<ul") : section.index("</ul>") + len("</ul>")]
    items = [names["class"] for tag, names in Page(section).tags if tag == "li"]
    assert items == ["bad", "good", "good", "quiet"]
    assert "advice flat" in section
    assert "advice calm" not in section
    assert html.index("1 sign fired: Sign flat") < html.index("What was measured")


def test_the_page_needs_nothing_else(html: str) -> None:
    tags = Page(html).tags
    assert not [tag for tag, _ in tags if tag in {"script", "link", "iframe"}]
    loaded = [value for _, names in tags for key, value in names.items() if key in {"src", "href", "xlink:href"}]
    assert loaded
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in loaded)
    assert not re.search(r"url\((?!#)|@import", html)
    assert "http" not in html


def test_ids_are_unique_and_references_lead_to_them(html: str) -> None:
    tags = Page(html).tags
    ids = [names["id"] for _, names in tags if "id" in names]
    assert len(ids) == len(set(ids))
    pointed = {names["href"][1:] for _, names in tags if names.get("href", "").startswith("#")}
    pointed |= {names["aria-labelledby"] for _, names in tags if "aria-labelledby" in names}
    pointed |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert pointed <= set(ids)


def test_pictures_and_figures_are_described(html: str) -> None:
    tags = Page(html).tags
    assert all(names["alt"] for tag, names in tags if tag == "img")
    figures = [names for _, names in tags if names.get("role") == "img"]
    assert len(figures) == sum(tag == "svg" for tag, _ in tags) == 7
    assert all(names["aria-label"] for names in figures)


def test_names_are_escaped(tmp_path: Path) -> None:
    names = ["<b>", "a|b", "$\\frac$", "</svg><script>"]
    write_sample(tmp_path, sample(class_names=names, bundle_name="<i>&", attacks=[_renamed("$x$ <u>")]))
    write_report(tmp_path)
    html, markdown = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert not [tag for tag, names in Page(html).tags if tag in {"b", "i", "u", "script"} and not names]
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert r"| a\|b |" in markdown
    assert "\\<script\\>" in markdown


def _renamed(title: str) -> object:
    return next(each for each in sample().attacks if each.name == "smooth-apgd").model_copy(update={"title": title})


def test_gallery_holds_the_right_pixels(folder: Path, html: str) -> None:
    with np.load(folder / "adv.npz") as archive:
        arrays = dict(archive)
    sources = [names["src"] for tag, names in Page(html).tags if tag == "img"]
    assert len(sources) == 4 * 3
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each.split(",")[1])))) for each in sources]
    for index, number in enumerate((100, 105, 131)):
        at = number - 100
        clean, adversarial = arrays["clean"][at], arrays["adversarial"][at]
        changed = np.clip(0.5 + 10 * (adversarial - clean), 0, 1)
        purified = np.clip(arrays["purified"][at], 0, 1)
        expected = [
            (clean * 255).round(),
            arrays["adversarial_uint8"][at],
            (changed * 255).round(),
            (purified * 255).round(),
        ]
        for picture, pixels in zip(shown[4 * index : 4 * index + 4], expected, strict=True):
            np.testing.assert_array_equal(picture, pixels.transpose(1, 2, 0))


def test_difference_is_grey_where_nothing_changed() -> None:
    clean = np.full((1, 1, 3), 0.2, np.float32)
    changed = clean + np.array([0.0, 0.01, -0.01], np.float32)
    np.testing.assert_allclose(difference(clean, changed).ravel(), [0.5, 0.6, 0.4], atol=1e-6)


def test_two_writes_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_sample(tmp_path)
    write_report(tmp_path)
    for name in ("report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_what_was_not_run_is_said() -> None:
    gone = {"attacks": [], "curves": [], "margins": {}, "classes": [], "certification": None, "detection": []}
    document = build_report(sample(**gone, checklist=[], indicators=[], gallery=[], notes=[], preset=None), None)
    silent = {section.anchor for section in document.sections if "Not run" in getattr(section.blocks[0], "text", "")}
    assert silent == {
        "waterfall",
        "questions",
        "curves",
        "margins",
        "classes",
        "certified",
        "detection",
        "checklist",
        "indicators",
        "gallery",
    }
    assert document.headline.startswith("No attack was run (clean: 85.0 %): nothing is known")
    assert document.number == "not attacked"


def test_bpda_alone_is_an_attack_through_the_defence() -> None:
    said = "BPDA alone (PGD-50, EOT 16, bpda) would have reported 45.0 % [30.7, 60.2]: 37.5 points too much."
    assert bpda_alone(sample()) == said
    transfer = [attack for attack in sample().attacks if attack.name == "transfer-bare"]
    assert bpda_alone(sample(attacks=transfer)) is None


def test_attacks_that_break_nothing_are_no_praise() -> None:
    attacks = [attack.model_copy(update={"first": 0, "left": 34}) for attack in sample().attacks]
    said = verdict(sample(attacks=attacks, worst_case=share(34, 40)))
    assert said.endswith("No attack broke any image: the attacks, or the budget, may be too weak to tell.")


def test_a_weak_attacker_is_named_as_such() -> None:
    transfer = [attack for attack in sample().attacks if attack.knowledge == "transfer"]
    evaluation = sample(attacks=transfer, worst_case=share(30, 40), worst_attack="transfer-bare")
    assert verdict(evaluation).startswith("An attacker who knows only a classifier without the purifier leaves 75.0 %")
    lead = " ".join(getattr(block, "text", "") for block in build_report(evaluation, None).lead)
    assert "No attack here knows the defence; one that does may leave far less." in lead


def test_the_caption_of_an_image_that_breaks_once_rounded(tmp_path: Path) -> None:
    images = [
        image.model_copy(update={"rounded": image.clean.model_copy(update={"right": False})})
        if image.number == 131
        else image
        for image in sample().image_results
    ]
    write_sample(tmp_path, sample(image_results=images))
    write_report(tmp_path)
    assert "survived every attack, and wrong once rounded to 256 levels" in (tmp_path / "report.html").read_text()


def test_steps_of_an_attack() -> None:
    attack = next(each for each in sample().attacks if each.name == "square")
    assert steps(attack) == ([0, 412, 1000], [4, 3, 3])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda table: table.pop("worst_case"), "worst_case"),
        (lambda table: table["attacks"][1].update(left="many"), "attacks.1.left"),
        (lambda table: table["image_results"][2].update(label=9), "image_results.2"),
        (lambda table: table["confusion"].pop(), "confusion"),
    ],
)
def test_a_damaged_result_names_the_key(tmp_path: Path, change: Callable[[dict[str, Any]], object], named: str) -> None:
    table = json.loads(sample().model_dump_json())
    change(table)
    (tmp_path / "result.json").write_text(json.dumps(table))
    with pytest.raises(ResultError, match=named) as caught:
        write_report(tmp_path)
    assert "result.json" in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_a_missing_or_torn_result(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="result.json"):
        read_evaluation(tmp_path)
    (tmp_path / "result.json").write_text('{"kind": "robust')
    with pytest.raises(ResultError, match="not JSON"):
        read_evaluation(tmp_path)


def test_a_damaged_archive_names_the_array(tmp_path: Path) -> None:
    arrays = write_sample(tmp_path)
    path = tmp_path / "adv.npz"
    np.savez(path, **{**arrays, "adversarial": arrays["adversarial"][:3]})
    with pytest.raises(ResultError, match="adversarial has shape"):
        read_adversarial(path)
    np.savez(path, **{key: value for key, value in arrays.items() if key != "clean"})
    with pytest.raises(ResultError, match="no array clean"):
        read_adversarial(path)
    path.write_bytes(b"not an archive")
    with pytest.raises(ResultError, match="adv.npz"):
        read_adversarial(path)
    np.savez(path, **{**arrays, "number": arrays["number"] + 1000})
    with pytest.raises(ResultError, match="gallery names image 100"):
        write_report(tmp_path)


def test_without_purified_images(tmp_path: Path) -> None:
    arrays = write_sample(tmp_path)
    np.savez(tmp_path / "adv.npz", **{key: value for key, value in arrays.items() if key != "purified"})
    write_report(tmp_path)
    assert sum(tag == "img" for tag, _ in Page((tmp_path / "report.html").read_text()).tags) == 9


def test_mcnemar() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert mcnemar(7, 0) == pytest.approx(0.015625)
    assert mcnemar(4, 4) == 1.0


def test_difference_interval() -> None:
    """56/70 against 48/80: Newcombe 1998, table II, example (a), method 10."""
    assert difference_interval(share(48, 80), share(56, 70)) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def _easier() -> Evaluation:
    """The sample with seven more survivors."""
    images = [
        image.model_copy(update={"all_broken_by": [], "broken_by": None, "rounded": None})
        if row in range(3, 10)
        else image
        for row, image in enumerate(sample().image_results)
    ]
    return sample(image_results=images, worst_case=share(sum(robust(image) for image in images), 40))


def test_a_paired_comparison(tmp_path: Path) -> None:
    write_sample(tmp_path / "a", _easier())
    write_sample(tmp_path / "b")
    markdown = write_comparison(tmp_path / "a", tmp_path / "b", tmp_path / "compare.html")
    assert "B is worse in the worst case: 7.5 % [2.6, 19.9] in B against 25.0 % [14.2, 40.2] in A" in markdown
    line = next(line for line in markdown.splitlines() if line.startswith("| worst case |"))
    assert line.endswith("| 7 | 0 | McNemar p = 0.0156 |")
    assert "images are not the same" not in markdown
    page = Page((tmp_path / "compare.html").read_text())
    assert [names for tag, names in page.tags if tag == "td" and names.get("class") == "bad"] != []
    assert ("div", {"class": "verdict bad"}) in page.tags


def test_comparing_different_images_or_threats_warns(tmp_path: Path) -> None:
    write_sample(tmp_path / "a")
    write_sample(tmp_path / "b", sample(first=500, threat={"norm": "linf", "budget": 4.0}, attacks=[_renamed("only")]))
    markdown = write_comparison(tmp_path / "a", tmp_path / "b", tmp_path / "compare.html")
    assert "**The images are not the same" in markdown
    assert "**The threats differ: L-infinity 8/255 against L-infinity 4/255" in markdown
    assert "McNemar" not in markdown
    assert "Only A was attacked with: random noise, 10 tries" in markdown
    page = Page((tmp_path / "compare.html").read_text())
    assert sum(tag == "p" and names.get("class") == "bad" for tag, names in page.tags) == 2


def test_records_that_do_not_add_up_are_not_paired(tmp_path: Path) -> None:
    write_sample(tmp_path / "a", sample(worst_case=share(20, 40)))
    write_sample(tmp_path / "b")
    markdown = write_comparison(tmp_path / "a", tmp_path / "b", tmp_path / "compare.html")
    line = next(line for line in markdown.splitlines() if line.startswith("| worst case |"))
    assert "not paired" in line


def test_numbers_for_people() -> None:
    assert [amount(count) for count in (950, 12_345, 4.56e6, 7.8e9)] == ["950", "12.3 k", "4.56 M", "7.8 G"]
    assert [duration(seconds) for seconds in (4.2, 750, 11100)] == ["4.2 s", "12 min 30 s", "3 h 05 min"]
    assert escape("a|b *c* [d](e) snake_case") == r"a\|b \*c\* [d\](e) snake_case"
