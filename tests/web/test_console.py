"""The console in a real browser: what a person does there, by mouse and by keyboard."""

import base64
import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from models.bundle import Bundle
from models.image_files import read_image
from tests.service.test_draining import process
from tests.web.conftest import Visit
from tests.web.page import finish, pick, run


def test_an_upload_is_attacked_purified_and_voted_on(visit: Visit, demo: httpx.Client, digit: Path) -> None:
    page = visit(demo)
    pick(page, digit)
    expect(page.locator("#budget-shown")).to_have_text("40/255")  # what the bundle's report is about
    page.get_by_role("button", name="Attack it, then defend").click()
    finish(page)
    captions = page.locator(".picture figcaption strong")
    expect(captions).to_have_text(["Picture", "Attacked", "Difference \u00d7\u200a10", "Purified"])
    answers = page.locator(".answer")
    expect(answers.nth(0)).to_have_text(re.compile(r"^6 "))
    expect(answers.nth(1)).to_have_class("answer wrong")
    expect(page.locator(".verdict")).to_contain_text("PGD-20 within 40/255 makes the bare classifier say")
    expect(page.locator(".votes li")).to_have_count(8)
    assert len(set(page.locator(".votes img").evaluate_all("images => images.map(each => each.src)"))) == 8
    agreeing = page.locator(".verdict").text_content() or ""
    assert re.search(r"as \d of 8 replicates do", agreeing)
    expect(page.locator(".energies .line")).to_have_count(8)
    heads = page.locator(".probabilities thead th")
    expect(heads).to_have_text(["Class", "Bare, picture", "Bare, attacked", "Purified"])
    expect(page.locator(".facts dt")).to_have_text(
        ["Suspicion", "Out of distribution", "Certificate", "Chains", "Time"]
    )
    expect(page.locator(".facts dd").first).to_contain_text("of clean pictures look less unusual")


def test_what_the_attacker_does_not_know_is_said_with_the_reports_number(
    visit: Visit, demo: httpx.Client, digit: Path, digits_bundle: Bundle
) -> None:
    page = visit(demo)
    pick(page, digit)
    page.click("#attack")
    finish(page)
    worst = digits_bundle.manifest.measured["robustness"]["worst_case"]
    notice = page.locator(".notice")
    expect(notice).to_contain_text("This attacker does not know the purifier")
    expect(notice).to_contain_text(f"{100 * worst['accuracy']:.1f}\u00a0%")
    notice.get_by_role("link").click()
    expect(page.get_by_role("tab", name="Robustness")).to_have_attribute("aria-selected", "true")


def test_choices_are_sent(visit: Visit, demo: httpx.Client, digit: Path) -> None:
    page = visit(demo)
    pick(page, digit)
    page.select_option("#preset", "fast")
    page.fill("#steps", "7")
    page.fill("#replicates", "3")
    page.check("#certify")
    page.click("#defend")
    finish(page)
    facts = page.locator(".facts dd")
    expect(facts.nth(0)).to_contain_text("not calibrated for these settings")
    expect(facts.nth(2)).to_contain_text(re.compile("L2 radius|favour no class"))
    expect(facts.nth(3)).to_contain_text("3 \u00d7 7")
    expect(page.locator(".votes li")).to_have_count(3)


def test_a_probability_that_was_not_sent_is_none(visit: Visit, demo: httpx.Client, digit: Path) -> None:
    """Of the bare classifier a server tells the likeliest class alone."""
    page = visit(demo)
    pick(page, digit)
    page.fill("#steps", "5")
    page.click("#defend")
    finish(page)
    expect(page.locator(".probabilities thead th")).to_have_text(["Class", "Bare", "Purified"])
    bare = page.locator(".probabilities tbody td:nth-child(2)").all_text_contents()
    assert len([text for text in bare if text.endswith("%")]) == 1
    assert [text for text in bare if not text.endswith("%")] == ["\u2013"] * 4
    purified = page.locator(".probabilities tbody td:nth-child(3)").all_text_contents()
    assert all(text.endswith("%") for text in purified)


def test_the_film_can_be_turned_back(visit: Visit, demo: httpx.Client, digit: Path) -> None:
    page = visit(demo, reduced_motion="reduce")
    pick(page, digit)
    page.fill("#steps", "48")
    page.click("#defend")
    finish(page)
    film = page.locator(".film")
    expect(film).to_contain_text("Step 48")  # without motion the end is shown at once
    end = page.locator(".picture").last.locator("img").get_attribute("src")
    film.locator("input").press("Home")
    expect(film).to_contain_text("Step 0")
    assert page.locator(".picture").last.locator("img").get_attribute("src") != end


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_may_be_dropped_or_pasted(visit: Visit, demo: httpx.Client, digit: Path, way: str) -> None:
    page = visit(demo)
    expect(page.locator("#served")).to_contain_text("digits-midrun")
    page.evaluate(
        """([way, base64]) => {
            const data = new DataTransfer();
            const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
            data.items.add(new File([bytes], `${way}.png`, { type: "image/png" }));
            const options = { bubbles: true, cancelable: true };
            const event = way === "drop"
                ? new DragEvent("drop", { ...options, dataTransfer: data })
                : new ClipboardEvent("paste", { ...options, clipboardData: data });
            document.body.dispatchEvent(event);
        }""",
        [way, base64.b64encode(digit.read_bytes()).decode()],
    )
    expect(page.locator("#status")).to_have_text(f"{way}.png is ready.")
    page.click("#defend")
    finish(page)


def test_a_problem_is_shown_by_its_title_and_detail_until_another_picture_is_picked(
    visit: Visit, demo: httpx.Client, digit: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    page = visit(demo, expected=("422",))
    page.set_input_files("#file", broken)
    page.click("#defend")
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("Unusable image")
    expect(problem).to_contain_text("the PNG file's header is corrupt or truncated")
    expect(page.locator("#stop")).to_be_hidden()
    pick(page, digit)
    expect(problem).to_be_hidden()


def test_a_value_that_the_server_refuses_is_named(visit: Visit, demo: httpx.Client, digit: Path) -> None:
    page = visit(demo, expected=("422",))
    pick(page, digit)
    page.locator("#steps").evaluate("input => input.removeAttribute('max')")
    page.fill("#steps", "5000")
    page.click("#defend")
    expect(page.get_by_role("alert")).to_contain_text("steps: 5000 is more than the 2000 allowed here")
    page.fill("#steps", "5")
    page.click("#defend")
    finish(page)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_server_that_is_gone_is_told(visit: Visit, demo: httpx.Client, digit: Path) -> None:
    page = visit(demo, expected=("ERR_FAILED",))
    pick(page, digit)
    page.route("**/demo/classify*", lambda route: route.abort())
    page.click("#defend")
    expect(page.get_by_role("alert")).to_contain_text("The server can not be reached")


def test_a_server_that_dies_amid_an_answer_is_told(visit: Visit, digit: Path) -> None:
    """SIGKILL while its chains run, 288,000 image-steps of them."""
    with process("--demo") as (server, client):
        page = visit(client, expected=("ERR_INCOMPLETE_CHUNKED_ENCODING",))
        pick(page, digit)
        page.fill("#steps", "2000")
        page.fill("#replicates", "16")
        page.check("#certify")
        page.click("#defend")
        expect(page.locator("#status")).to_contain_text("Purifying:")
        server.kill()
        expect(page.get_by_role("alert")).to_contain_text("The answer broke off")
        expect(page.locator("#status")).to_have_text("The answer broke off.")
        expect(page.locator("#stop")).to_be_hidden()


def test_a_run_can_be_stopped(visit: Visit, demo: httpx.Client, digit: Path) -> None:
    """Its request is held up on the way, or a fast machine would end it before it is stopped."""
    page = visit(demo)
    pick(page, digit)
    page.route("**/demo/classify?**", lambda route: None)
    page.click("#defend")
    expect(page.locator("#status")).to_have_text("Waiting for the engine.")
    page.click("#stop")
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.locator("#stop")).to_be_hidden()


def test_everything_is_done_by_keyboard(visit: Visit, demo: httpx.Client, digit: Path) -> None:
    page = visit(demo)
    pick(page, digit)
    page.locator("body").press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("tab", name="Defence")).to_be_focused()
    for name in ("Robustness", "Operations", "API", "Defence"):
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name=name)).to_be_focused()
        expect(page.get_by_role("tabpanel", name=name)).to_be_visible()
    order = []
    for _ in range(9):
        page.keyboard.press("Tab")
        focused = page.evaluate("[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]")
        order.append(focused[0])
        assert focused[0] == "file" or focused[1] == "solid", focused  # the file input's label shows its focus
        if focused[0] == "attack":
            break
    assert order == ["file", "budget", "attack"]
    page.keyboard.press("Enter")
    finish(page)
    expect(page.locator("figcaption strong").nth(1)).to_have_text("Attacked")


def test_a_server_with_keys_is_used_with_one(
    visit: Visit, plain: httpx.Client, digit: Path, tmp_path: Path, digits_bundle: Bundle
) -> None:
    page = visit(plain, expected=("401",))
    field = page.get_by_label("This server asks for a key")
    field.fill("wrong\N{HORIZONTAL ELLIPSIS}")  # as a word processor has it
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("the key is not one that this server knows")
    field.fill("hush")
    field.press("Enter")
    expect(page.locator("#served")).to_contain_text("digits-midrun")
    expect(field).to_be_hidden()
    expect(page.locator("#attack")).to_be_hidden()  # this server demonstrates nothing
    pick(page, digit)
    page.click("#defend")
    finish(page)
    expect(page.locator(".votes")).to_have_count(0)
    expect(page.locator(".verdict")).to_contain_text("of 8 replicates do")
    further = page.locator(".picture").last
    expect(further.locator("img")).to_have_attribute("src", re.compile("^data:image/png"))
    expect(further.locator(".said")).to_have_text("one further chain, not one of those that voted")
    assert page.evaluate("() => JSON.stringify([localStorage, sessionStorage, document.cookie])") == '[{},{},""]'
    page.click("#tab-api")
    command, program = page.locator("#panel-api code").all_text_contents()
    assert "X-API-Key: $LIMPID_API_KEY" in command
    (tmp_path / digit.name).write_bytes(digit.read_bytes())
    assert "label='6'" in run(program, tmp_path, LIMPID_API_KEY="hush")
    purified = tmp_path / "purified.png"
    drawn = purified.read_bytes()
    environment = {**os.environ, "LIMPID_API_KEY": "hush"}
    subprocess.run(["bash", "-c", f"{command} --silent --fail"], cwd=tmp_path, env=environment, check=True)
    assert read_image(purified, digits_bundle.manifest.image).shape == (1, 8, 8)
    assert purified.read_bytes() != drawn  # of another chain
