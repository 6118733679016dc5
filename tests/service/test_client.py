"""The client against real server processes: answers, progress, problems, overload and a restart in the middle."""

import asyncio
import io
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import httpx2
import numpy as np
import pytest
from PIL import Image

from service.cli.__main__ import main as limpid
from service.client import (
    AsyncClient,
    ClassifyOptions,
    Client,
    ClientError,
    ConnectionLost,
    InputError,
    Progress,
    PurifyOptions,
    Queued,
    RestoreOptions,
    Retries,
    ServiceProblem,
    Unreachable,
)
from service.client.answers import check_status
from service.client.questions import Question
from service.client.retrying import Contact, Patience
from service.schemas import Classification, ClassifiedItem, FailedItem, Problem
from tests.server_process import DIGITS, ROOT, Serve
from tests.service.test_draining import busy, until
from tests.service.test_server import PIXELS, PNG

ONCE = Retries(total_wait=0)
STEADY = ClassifyOptions(seed=7, steps=500, replicates=8)


@pytest.fixture
def client(server: httpx.Client) -> Iterator[Client]:
    with Client(str(server.base_url)) as client:
        yield client


def test_answers_are_the_services_schemas(client: Client, tmp_path: Path) -> None:
    (tmp_path / "six.png").write_bytes(PNG)
    first = client.classify(tmp_path / "six.png", ClassifyOptions(seed=3, top_k=2, preset="fast"))
    again = client.classify(PNG, ClassifyOptions(seed=3, top_k=2, preset="fast"))
    assert isinstance(first, Classification)
    assert (first.preset, len(first.predictions)) == ("fast", 2)
    assert first.predictions[0].label == again.predictions[0].label == "6"
    assert first.request_id != again.request_id
    unchanged = client.purify(PNG, PurifyOptions(steps=0))
    assert np.array_equal(np.array(Image.open(io.BytesIO(unchanged.png))), PIXELS)
    assert unchanged.distance.linf_255 == 0.0
    assert client.info().name == "digits-midrun"


def test_several_images_fail_one_by_one(client: Client) -> None:
    several = client.classify_many([PNG, b"junk", PNG], ClassifyOptions(labels_only=True))
    assert [type(item) for item in several.results] == [ClassifiedItem, FailedItem, ClassifiedItem]
    assert several.failed == 1
    failed = several.results[1]
    assert isinstance(failed, FailedItem)
    assert failed.problem.type == "urn:limpid:problem:unsupported-format"
    purified = client.purify_many([PNG, PNG], PurifyOptions(steps=0))
    assert purified.failed == 0


def test_restoring_leaves_the_known_pixels_alone(client: Client) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:3] = 255
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    answer = client.restore(PNG, buffer.getvalue(), RestoreOptions(replicates=2, steps=5))
    restored = np.array(Image.open(io.BytesIO(answer.png)))
    assert answer.restored_pixels == 24
    assert np.array_equal(restored[3:], PIXELS[3:])
    assert not np.array_equal(restored[:3], PIXELS[:3])


def test_problems_are_errors_with_their_type_title_and_detail(client: Client) -> None:
    with pytest.raises(ServiceProblem) as caught:
        client.classify(PNG, ClassifyOptions(preset="max"))
    error = caught.value
    assert (error.status, error.type) == (422, "urn:limpid:problem:invalid-parameters")
    assert error.title == "Invalid parameters"
    assert error.detail == "preset: unknown preset 'max'; known: fast, balanced, strong"
    assert str(error) == f"{error.title}: {error.detail}"
    assert error.problem.errors[0].location == "preset"
    with pytest.raises(ServiceProblem, match="several seconds|server's 120"):
        client.classify(PNG, timeout=1000)
    with client.purify_job(b"junk") as job, pytest.raises(ServiceProblem, match="not a PNG, JPEG or WebP"):
        job.result()


def test_a_job_tells_its_progress_and_then_answers(serve: Serve, tmp_path: Path) -> None:
    """Progress is told every fifth of a second: these chains run for longer."""
    long = STEADY.model_copy(update={"steps": 5000})
    with serve(tmp_path / "log", LIMPID_MAX_STEPS="5000") as http, Client(str(http.base_url)) as client:
        with client.classify_job(PNG, long) as job:
            queued, *events = list(job)
            answer = job.result()
        alone = client.classify(PNG, long)
    assert isinstance(queued, Queued)
    assert queued.cost >= 40_000
    assert all(isinstance(event, Progress) for event in events)
    fractions = [event.fraction for event in events if isinstance(event, Progress)]
    assert fractions
    assert fractions == sorted(set(fractions))
    assert answer.steps == 5000
    assert alone.predictions[0].probability == pytest.approx(answer.predictions[0].probability, abs=1e-3)


def test_the_asynchronous_client_does_the_same(server: httpx.Client) -> None:
    async def ask() -> None:
        async with AsyncClient(str(server.base_url)) as client:
            fast = ClassifyOptions(preset="fast", labels_only=True)
            answers = await asyncio.gather(*(client.classify(PNG, fast) for _ in range(4)))
            assert {answer.predictions[0].label for answer in answers} == {"6"}
            async with client.classify_job(PNG, STEADY) as job:
                events = [event async for event in job]
                assert (await job.result()).replicates == 8
            assert [isinstance(event, Queued) for event in events] == [True] + [False] * (len(events) - 1)
            with pytest.raises(ServiceProblem, match="not a PNG"):
                await client.purify(b"junk")
            assert (await client.purify(PNG, PurifyOptions(steps=0))).distance.l2 == 0.0
            assert (await client.info()).name == "digits-midrun"

    asyncio.run(ask())


def test_overload_is_waited_out_and_the_key_opens_the_door(
    serve: Serve,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command does the same: three requests at a time, of which the server takes one."""
    flags = ("--max-requests", "1", "--overload-status", "429")
    with serve(tmp_path / "log", *flags, LIMPID_API_KEYS="team:opensesame") as http:
        url = str(http.base_url)
        with Client(url) as stranger, pytest.raises(ServiceProblem, match="Unauthorized") as caught:
            stranger.classify(PNG)
        assert caught.value.status == 401
        with Client(url, "opensesame", retries=ONCE) as hasty, Client(url, "opensesame") as patient:
            job = hasty.purify_job(PNG, PurifyOptions(steps=2000))
            assert isinstance(next(iter(job)), Queued)
            with pytest.raises(ServiceProblem) as refused:
                hasty.classify(PNG)
            assert (refused.value.status, refused.value.retry_after) == (429, 1.0)
            with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.WARNING):
                began = time.monotonic()
                answer = pool.submit(patient.classify, PNG)
                job.result()
                assert answer.result(60).predictions[0].label == "6"
                assert time.monotonic() - began >= 1.0, "Retry-After was not honoured"
            (tmp_path / "six.png").write_bytes(PNG)
            six = str(tmp_path / "six.png")
            assert limpid(["classify", six, "--url", url, "--api-key", "wrong"]) == 2
            assert "or better the variable LIMPID_API_KEY" in capsys.readouterr().err
            monkeypatch.setenv("LIMPID_API_KEY", "opensesame")
            assert limpid(["classify", six, six, six, "--url", url, "--parallel", "3"]) == 0
        assert re.search(r"1 requests are in progress; asking again in 1\.\d s", caplog.text)
        assert "opensesame" not in caplog.text + repr(vars(patient))


@contextmanager
def running(port: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A ready server on that port, killed in the end, and its address."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LIMPID_")}
    command = [sys.executable, "-m", "service", "--bundle", str(DIGITS), "--port", port, "--slots", "16"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    environment["OMP_NUM_THREADS"] = "1"
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **streams) as process:
        try:
            assert process.stdout is not None
            match = re.search(r"http://[\d.:]+", process.stdout.readline())
            assert match
            yield process, match[0]
        finally:
            process.kill()


def test_a_restart_in_the_middle_costs_time_and_no_answer(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """SIGKILL while a job and the command's request run; a new process takes the port, and both are answered."""
    (tmp_path / "six.png").write_bytes(PNG)
    met = Retries(first_contact=0)  # what was there once is waited for all the same
    with running("0") as (process, url), Client(url, retries=met) as client, ThreadPoolExecutor(1) as pool:
        with httpx.Client(base_url=url) as http:
            until(http, "/health/ready", 200)
            expected = client.classify(PNG, STEADY).predictions[0].probability
            job = client.classify_job(PNG, STEADY)
            asked = ["classify", str(tmp_path / "six.png"), "--url", url, "--steps", "2000", "--replicates", "8"]
            command = pool.submit(limpid, asked)
            assert any(isinstance(event, Progress) for event in job)
            busy(http)
        process.kill()
        process.wait()
        with running(url.rsplit(":", 1)[1]):
            answer = job.result()
            assert command.result(120) == 0
    assert answer.predictions[0].probability == pytest.approx(expected, abs=1e-3)
    assert "no connection to http://127.0.0.1:" in caplog.text


def test_leaving_a_job_stops_its_chains(server: httpx.Client, client: Client) -> None:
    with client.classify_job(PNG, ClassifyOptions(steps=500, replicates=16, certify=True, certify_draws=128)) as job:
        assert any(isinstance(event, Progress) for event in job)
    deadline = time.monotonic() + 10
    while "ebm_slots_active 0.0" not in server.get("/metrics").text:
        assert time.monotonic() < deadline, "72,000 image-steps take longer than the ten seconds"
    with pytest.raises(ConnectionLost, match="before its result"):
        job.result()


def problem(status: int, retry_after: float | None = None) -> ServiceProblem:
    document = Problem(type="about:blank", title="No", status=status, detail="", instance="/", request_id="")
    return ServiceProblem(document, retry_after)


def test_waits_grow_are_partly_random_and_bounded_together() -> None:
    retries = Retries(total_wait=10, first_wait=1, longest_wait=4)
    lost = ConnectionLost("gone")
    early, late = Patience(retries, Contact(), lambda: 0.0), Patience(retries, Contact(), lambda: 0.999)
    assert [early.wait_after(lost) for _ in range(5)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert [late.wait_after(lost) for _ in range(3)] == pytest.approx([1, 2, 4], rel=1e-2)
    with pytest.raises(ConnectionLost):  # 7 of 10 seconds are used up, and the next wait would be 4
        late.wait_after(lost)


def test_what_the_service_asks_for_is_waited_for_and_never_longer_than_allowed() -> None:
    retries = Retries(total_wait=30, first_wait=1, longest_wait=4)
    patience = Patience(retries, Contact(), lambda: 0.0)
    assert patience.wait_after(problem(503, 12.0)) == 12.0
    assert Patience(retries, Contact(), lambda: 0.5).wait_after(problem(429, 12.0)) == 12.25
    with pytest.raises(ServiceProblem):
        patience.wait_after(problem(503, 19.0))
    assert patience.wait_after(problem(502)) == 1.0


def test_a_service_that_was_there_is_waited_for_longer_than_one_that_never_was() -> None:
    """The one may be restarting, the other may have another address."""
    retries, contact = Retries(total_wait=60, first_wait=8, longest_wait=8, first_contact=3), Contact()
    with pytest.raises(Unreachable):
        Patience(retries, contact, lambda: 0.0).wait_after(Unreachable("refused"))
    assert Patience(retries, contact, lambda: 0.0).wait_after(ConnectionLost("broken")) == 4.0
    contact.made = True
    assert Patience(retries, contact, lambda: 0.0).wait_after(Unreachable("refused")) == 4.0


@pytest.mark.parametrize("status", [400, 401, 403, 413, 415, 422, 500, 504])
def test_what_would_fail_again_is_not_asked_again(status: int) -> None:
    with pytest.raises(ServiceProblem):
        Patience(Retries(), Contact()).wait_after(problem(status, 1.0))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date_by_the_servers_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    response = httpx2.Response(503, headers=headers, request=httpx2.Request("POST", "http://local/v1/purify"))
    with pytest.raises(ServiceProblem) as caught:
        check_status(response)
    assert caught.value.retry_after == seconds


def test_a_proxys_page_is_a_problem_too() -> None:
    request = httpx2.Request("POST", "http://local/v1/purify")
    with pytest.raises(ServiceProblem, match="Bad Gateway: <html>") as caught:
        check_status(httpx2.Response(502, html="<html>nobody there</html>", request=request))
    assert (caught.value.type, caught.value.problem.instance) == ("about:blank", "/v1/purify")
    moved = httpx2.Response(307, headers={"Location": "https://local/"}, request=request)
    with pytest.raises(ServiceProblem, match="Temporary Redirect"):
        check_status(moved)


def test_events_that_are_not_known_are_passed_over_and_errors_are_problems() -> None:
    question = Question("/v1/classify", Classification)
    assert question.read_event(httpx2.ServerSentEvent("preview", '{"png": ""}')) is None
    document = problem(503).problem.model_dump_json()
    with pytest.raises(ServiceProblem) as caught:
        question.read_event(httpx2.ServerSentEvent("error", document))
    assert Patience(Retries(), Contact()).wait_after(caught.value) > 0
    with pytest.raises(ClientError, match="expected a Classification as the service's own version has it"):
        question.read_event(httpx2.ServerSentEvent("result", "{}"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:8000",), "expected an address such as"),
        (("ftp://local",), "expected an address such as"),
        (("http://",), "expected an address such as"),
        (("http://local", "one\ntwo"), "no header can hold"),
        (("http://local", ""), "or none at all"),
    ],
)
def test_what_can_not_be_sent_is_refused_at_once(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Client(*arguments)


def test_a_missing_file_and_no_images_are_named(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.png: the file can not be read: No such file"):
        client.classify(tmp_path / "none.png")
    with pytest.raises(InputError, match="expected a sequence of at least one image, got list"):
        client.classify_many([])
    with pytest.raises(InputError, match="got bytes"):
        client.classify_many(PNG)  # type: ignore[arg-type]


def test_importing_the_client_loads_nothing_heavy() -> None:
    code = "import sys, service.client; print(sorted({'torch', 'fastapi', 'starlette', 'numpy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
