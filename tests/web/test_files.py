"""The console's files as they are served, and what they hold."""

import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest
import torch

import service
from models.data import ImageDataset
from models.image_files import read_image
from models.manifest import ImageShape
from service.console import load_files
from tests.server_process import serve_bundle
from tests.web.npm import npm_file

WEB = Path(service.__file__).parent / "web"
PAGE = (WEB / "index.html").read_text()
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
TSC = ("typescript@5.9.3", "lib/tsc.js", "2cffde0b8c6760dfb0b5b0382bbb7e00ba6a8b2d981b9205b256a700a481d983")
OPTIONS = "--noEmit --allowJs --checkJs --strict --noUnusedLocals --noUnusedParameters --module es2022 --target es2023"


def test_browsers_get_the_page_and_programs_the_index(demo: httpx.Client) -> None:
    page = demo.get("/", headers=BROWSER)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text == PAGE
    assert page.headers["vary"] == "Accept"
    assert demo.get("/").json()["name"] == "digits-midrun"
    assert demo.head("/", headers=BROWSER).headers["etag"] == page.headers["etag"]
    assert demo.post("/web/app.js").status_code == 404


def test_a_browser_that_has_a_file_is_not_sent_it_again(demo: httpx.Client) -> None:
    first = demo.get("/web/app.js")
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    assert first.headers["cache-control"] == "no-cache"
    again = demo.get("/web/app.js", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert demo.get("/web/app.js", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/web/gallery/index.json"])
def test_the_policy_allows_nothing_inline_and_no_other_server(demo: httpx.Client, path: str) -> None:
    headers = demo.get(path, headers=BROWSER).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")


def test_files_need_no_key_and_everything_else_does(plain: httpx.Client) -> None:
    assert plain.get("/", headers=BROWSER).text == PAGE
    assert plain.get("/web/style.css").status_code == 200
    for path in ("/", "/web/none.js", "/web/../service/settings.py", "/report", "/info"):
        assert plain.get(path).status_code == 401, path


def test_without_the_console_there_is_the_index_alone(tmp_path: Path) -> None:
    with serve_bundle(tmp_path / "log", "--no-ui") as client:
        assert client.get("/", headers=BROWSER).json()["name"] == "digits-midrun"
        assert client.get("/web/app.js").status_code == 404
        assert client.get("/info").json()["demo"] is None
        assert client.post("/demo/attack").status_code == 404


def test_the_page_names_each_module_that_it_needs_and_none_that_is_missing() -> None:
    preloaded = set(re.findall(r'modulepreload" href="web/([a-z]+\.js)"', PAGE))
    assert preloaded == {path.name for path in WEB.glob("*.js")} - {"app.js", "types.js"}
    assert not re.search(r"<style|style=|<script(?! type=\"module\" src)| on[a-z]+=|https?:", PAGE)
    sources = [path.read_text() for path in (*WEB.glob("*.js"), *WEB.glob("*.css"))]
    forbidden = r"innerHTML|insertAdjacentHTML|\beval\(|\burl\(|@import|https?://(?!www\.w3\.org)"
    assert [re.findall(forbidden, each) for each in sources if re.search(forbidden, each)] == []


def test_all_files_together_are_light() -> None:
    total = sum(len(file.content) for file in load_files().values())
    print(f"the console's files: {total / 1024:.0f} KiB")
    assert total < 300_000


def test_types_of_the_scripts() -> None:
    tsc = npm_file(*TSC)
    # Its libraries of types lie beside it.
    sources = sorted(map(str, WEB.glob("*.js")))
    command = ["node", str(tsc), *OPTIONS.split(), "--lib", "es2023,dom,dom.iterable", *sources]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_gallery_is_the_first_two_test_images_of_each_class(cifar10_test: ImageDataset) -> None:
    folder = WEB / "gallery"
    listed = json.loads((folder / "index.json").read_text())["pictures"]
    firsts = [int(index) for label in range(10) for index in (cifar10_test.labels == label).nonzero()[:2]]
    assert [each["index"] for each in listed] == firsts
    assert {each["file"] for each in listed} == {path.name for path in folder.glob("*.png")}
    for each in listed:
        pixels = read_image(folder / each["file"], ImageShape(height=32, width=32, channels=3))
        assert torch.equal(pixels, cifar10_test.images[each["index"]])
        assert each["label"] == cifar10_test.class_names[cifar10_test.labels[each["index"]]]
