"""The command `limpid`: the same answers in this process and through a service, and no file lost."""

import argparse
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.image_files import encode_png
from service.answer_arguments import CLASSIFYING, add_classify_arguments, with_flags
from service.cli.__main__ import main
from service.options import ClassifyOptions
from tests.server_process import DIGITS, ROOT
from tests.service.test_server import PNG, TEST_SET

HERE = ("--bundle", str(DIGITS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(encode_png(TEST_SET.images[number]))
    return tmp_path


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image)


def test_a_service_and_a_bundle_in_this_process_say_the_same(
    server: httpx.Client, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad file and a missing one fail alone, with the same problem either way."""
    (folder / "bad.png").write_bytes(b"junk")
    names = ("0.png", "bad.png", "1.png", "none.png", "2.png")
    files = [str(folder / name) for name in names]
    asked = ["classify", *files, "--json", "--seed", "5", "--steps", "40", "--top-k", "3"]
    found = []
    for way in (HERE, ("--url", str(server.base_url))):
        assert main([*asked, *way]) == 1
        printed = capsys.readouterr()
        assert "2 of 5 files failed" in printed.err
        assert f"{files[1]}: Unsupported image format: the upload is not a PNG, JPEG or WebP file" in printed.err
        found.append(rows(printed.out))
    here, there = found
    assert [row["file"] for row in here] == files
    assert [row["status"] for row in here] == [200, 415, 200, 422, 200]
    assert [list(row) for row in here] == [list(row) for row in there]
    assert here[1] == there[1]
    assert here[3] == there[3]
    assert here[3]["problem"]["detail"] == "the file can not be read: No such file or directory"
    for one, other in zip(here, there, strict=True):
        if one["status"] == 200:
            (best, *_), (other_best, *_) = one["predictions"], other["predictions"]
            assert len(one["predictions"]) == 3
            assert best["index"] == other_best["index"]
            # Another batch size rounds otherwise, and forty steps carry that on.
            assert best["probability"] == pytest.approx(other_best["probability"], abs=0.01)
            assert one["ood"] == pytest.approx(other["ood"], abs=0.01)
            assert all(one[key] == other[key] for key in ("preset", "steps", "bundle"))


@pytest.mark.parametrize("remote", [False, True])
def test_purified_images_are_written_without_loss(
    server: httpx.Client, folder: Path, capsys: pytest.CaptureFixture[str], remote: bool
) -> None:
    way = ("--url", str(server.base_url)) if remote else HERE
    files = [str(folder / f"{number}.png") for number in range(3)]
    assert main(["purify", *files, "-o", str(folder / "out"), "--steps", "0", "--json", *way]) == 0
    for number, row in enumerate(rows(capsys.readouterr().out)):
        assert row["out"] == str(folder / "out" / f"{number}.png")
        assert row["distance"] == {"l2": 0.0, "linf_255": 0.0}
        assert "png_base64" not in row
        assert np.array_equal(pixels(Path(row["out"])), TEST_SET.images[number, 0].numpy())
    one = folder / "one.png"
    assert main(["purify", files[0], "-o", str(one), "--preset", "fast", *way]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{files[0]}: {one}, moved by L2 ")
    assert not np.array_equal(pixels(one), TEST_SET.images[0, 0].numpy())


def test_a_seed_repeats_an_image_to_the_bit_whoever_stands_beside_it(folder: Path) -> None:
    first, second = folder / "first.png", folder / "second"
    assert main(["purify", str(folder / "0.png"), "-o", str(first), "--seed", "1", *HERE]) == 0
    files = [str(folder / f"{number}.png") for number in (3, 0)]
    assert main(["purify", *files, "-o", str(second), "--seed", "1", *HERE]) == 0
    assert first.read_bytes() == (second / "0.png").read_bytes()


def test_no_file_is_replaced_unless_that_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, other = folder / "0.png", folder / "sub" / "0.png"
    other.parent.mkdir()
    other.write_bytes(PNG)
    before = file.read_bytes()
    for arguments, message in (
        ((str(file), "-o", str(file)), "0.png exists; choose another -o, or replace it with --overwrite"),
        ((str(folder / "1.png"), str(file), "-o", str(folder)), "1.png exists"),
        ((str(file), "-o", str(folder / "out.jpg")), "expected a name that ends in .png"),
        ((str(file), str(other), "-o", str(folder / "out")), "would both be written to"),
        ((str(file), str(file), "-o", str(folder / "out")), "would both be written to"),
        ((str(file), str(folder / "1.png"), "-o", str(other)), "expected a folder for 2 files"),
    ):
        assert main(["purify", *arguments, *HERE]) == 2
        assert message in capsys.readouterr().err
    assert file.read_bytes() == before
    assert main(["purify", str(file), "-o", str(file), "--overwrite", "--seed", "1", *HERE]) == 0
    assert not np.array_equal(pixels(file), np.array(Image.open(io.BytesIO(before))))


def test_what_concerns_all_files_is_said_once(
    server: httpx.Client, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, url = [str(folder / f"{number}.png") for number in range(3)], str(server.base_url)
    for arguments, message in (
        (("classify", *files, "--url", url, "--device", "cpu"), "--device belongs to a bundle in this process"),
        (("classify", *files, "--parallel", "2"), "--parallel needs --url"),
        (("purify", *files, "-o", str(folder / "o"), "--seed", "1", "--url", url), "--seed: the service's /purify"),
        (("purify", *files, "-o", str(folder / "two.png"), *HERE), "not the name of one"),
        (("classify", *files, "--preset", "max", *HERE), "unknown preset 'max'; known: fast, balanced, strong"),
        (("classify", *files, "--preset", "max", "--url", url), "unknown preset 'max'; known: fast, balanced, strong"),
        (("classify", *files, "--bundle", str(folder)), "is not a bundle"),
        (("classify", *files, "--url", "localhost"), "expected an address such as"),
    ):
        assert main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.err.count(message) == 1
        assert printed.out == ""


def test_a_service_is_asked_without_pytorch_and_a_missing_client_names_its_extra(
    server: httpx.Client, folder: Path
) -> None:
    asked = ["classify", str(folder / "0.png"), "--url", str(server.base_url), "--preset", "fast"]
    code = f"import sys, service.cli.__main__ as cli; print(cli.main({asked!r}), 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "0 False"
    code = f"import sys; sys.modules['httpx2'] = None; import service.cli.__main__ as cli; print(cli.main({asked!r}))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "2"
    assert "pip install -e '.[client]'" in result.stderr


def test_an_address_where_nothing_listens_is_given_up_soon(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Far below the client's minute, and three files that wait are not told of thrice."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        assert main(["classify", *(str(folder / f"{number}.png") for number in range(3)), "--url", url]) == 2
        assert time.monotonic() - began < 10
    *waits, error = [line for line in capsys.readouterr().err.splitlines() if "no connection" in line]
    refused = f"no connection to {url}/v1/classify: connection refused; nothing has answered there yet: is the"
    wait = re.compile(re.escape(refused) + r".*; asking again in \d\.\d s, for at most \d s more")
    assert error.startswith(f"error: {refused}")
    assert 1 <= len(waits) <= 3
    assert all(wait.fullmatch(line) for line in waits)


def test_an_interruption_speaks_of_answers(folder: Path) -> None:
    """SIGINT after the first of forty images, of which two run at a time."""
    files = [str(folder / f"{number}.png") for number in range(40)]
    for file in files[4:]:
        shutil.copyfile(files[0], file)
    asked = ["classify", *files, "--steps", "2000", "--replicates", "8", *HERE]
    # What a shell starts in the background ignores SIGINT, and so do the processes that it starts.
    heed = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", heed, sys.executable, "-m", "service.cli", *asked]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"{files[0]}: ")
        process.send_signal(signal.SIGINT)
        printed, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(printed.splitlines()) < 39
    assert told.splitlines()[-1] == "interrupted; the answers given so far are whole"


@pytest.mark.parametrize("remote", [False, True])
def test_refusals_name_the_flags_that_were_typed(
    server: httpx.Client, folder: Path, capsys: pytest.CaptureFixture[str], remote: bool
) -> None:
    way = ("--url", str(server.base_url)) if remote else HERE
    file, large = str(folder / "0.png"), folder / "large.png"
    large.write_bytes(encode_png(TEST_SET.images[:1, 0].repeat(1, 2, 2)))
    for asked, message in (
        (("--certify-draws", "8"), "--certify-draws: has no meaning without --certify"),
        (("--certify", "--labels-only"), "--certify: a certificate's radius"),
        (("--certify", "--certify-draws", "100000"), "--certify-draws: 100000 is more than"),
        (("--steps", "-1"), "--steps: Input should be greater than or equal to 0, got -1"),
        (("--steps", "5000"), "--steps: 5000 is more than"),
        (("--sigma", "2", "--top-k", "9999999999"), "--top-k: Input should be less than"),
        (("--preset", "top_k"), "--preset: unknown preset 'top_k'; known: fast"),
    ):
        assert main(["classify", file, *asked, *way]) == 2
        assert message in capsys.readouterr().err
    assert main(["classify", str(large), "--json", *way]) == 1
    printed = capsys.readouterr()
    assert "--resize accepts it" in printed.err
    assert "--resize accepts it" in rows(printed.out)[0]["problem"]["detail"]
    with pytest.raises(SystemExit):
        main(["classify", file, "--seed", "-1", *way])
    assert "argument --seed: expected a whole number from 0" in capsys.readouterr().err


def test_every_option_of_the_service_has_its_flag() -> None:
    parser = argparse.ArgumentParser()
    add_classify_arguments(parser.add_argument_group())
    flags = set(re.findall(r"--[a-z-]+", parser.format_usage()))
    names = set(ClassifyOptions.model_fields) - {"seed"}
    assert names == set(CLASSIFYING)
    assert {with_flags(f"{name}: no") for name in names} == {f"{flag}: no" for flag in flags}
    assert with_flags("form.top_k: no; seed: no") == "--top-k: no; --seed: no"
    assert (
        with_flags("ask for fewer steps; see /steps: or 'seed=true'")
        == "ask for fewer steps; see /steps: or 'seed=true'"
    )
