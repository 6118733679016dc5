"""Two replicas under Ray Serve and a steady load: one is killed, then both are replaced.

`python -m tests.benchmarks.ray_serving`: the bundle of digits by docker/ray/serve.yaml, with half a core a replica and
a token for Ray's own ports.
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from models.bundle import read_manifest
from models.console import console
from models.image_files import encode_png
from tests.benchmarks.load import Outcome, example_image, offer, poisson_arrivals, purify_request
from tests.benchmarks.processes import ROOT, BenchmarkError, Server
from tests.ray_cluster import ENVIRONMENT, Cluster, free_port, local_cluster

DIGITS = ROOT / "models" / "zoo" / "digits-midrun"
REPLICA = "ray::ServeReplica:limpid"
READY_SECONDS = 300.0


def main() -> None:
    """Run both, and print what became of every request."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ray_serving", description=main.__doc__)
    parser.add_argument("--rate", type=float, default=5.0, help="requests a second (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load in each part (default %(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="of a request's chain (default %(default)s)")
    options = parser.parse_args()
    ENVIRONMENT.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    dashboard, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = ("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}")
        with local_cluster(folder, *flags) as cluster:
            started = time.monotonic()
            deploy(folder, dashboard, port, max_steps=2000)
            server = Server("127.0.0.1", port, cluster.pid)
            wait_for(lambda: len(cluster.processes(REPLICA)) == 2 and _ready(server))
            wait_for(lambda: _running(dashboard))
            console.print(f"deployed and warm in {time.monotonic() - started:.1f} s, two replicas")
            asyncio.run(kill_one(cluster, server, options))
            asyncio.run(replace_both(cluster, server, dashboard, folder, options))


async def kill_one(cluster: Cluster, server: Server, options: argparse.Namespace) -> None:
    """SIGKILL one replica in the middle of the load."""
    load, started = asyncio.create_task(_load(server, options)), time.monotonic()
    await asyncio.sleep(options.seconds / 3)
    before = cluster.processes(REPLICA)
    os.kill(before[0], signal.SIGKILL)
    killed = time.monotonic()
    while len(set(cluster.processes(REPLICA)) - {before[0]}) < 2:
        await asyncio.sleep(0.2)
    back = time.monotonic() - killed
    outcomes = await load
    _say("one of two replicas killed by SIGKILL", outcomes)
    underway = sum(each.arrival.at < killed - started < each.ended for each in outcomes)
    console.print(f"  {underway} requests were under way at the kill; the successor began {back:.1f} s after it")
    failed = [each.ended for each in outcomes if not (each.answered or each.turned_away)]
    if failed:
        console.print(
            f"  failures within {max(failed) - min(failed):.1f} s, the last {max(failed):.1f} s into the load"
        )


async def replace_both(
    cluster: Cluster, server: Server, dashboard: int, folder: Path, options: argparse.Namespace
) -> None:
    """Deploy a changed setting under load, and wait until no old replica is left."""
    wait_for(lambda: _running(dashboard))
    old = set(cluster.processes(REPLICA))
    load = asyncio.create_task(_load(server, options))
    await asyncio.sleep(options.seconds / 6)
    began = time.monotonic()
    await asyncio.to_thread(deploy, folder, dashboard, server.port, max_steps=2001)
    while old & set(cluster.processes(REPLICA)) or not await asyncio.to_thread(_running, dashboard):
        await asyncio.sleep(0.5)
    took = time.monotonic() - began
    outcomes = await load
    _say("both replicas replaced by a rolling update", outcomes)
    failed = sum(not each.answered for each in outcomes)
    console.print(f"  replaced within {took:.1f} s; {failed} requests failed or were turned away")
    if took > options.seconds * 5 / 6:
        console.print("  the load ended before the update did: give more --seconds", style="red")


def deploy(folder: Path, dashboard: int, port: int, **settings: Any) -> None:
    """docker/ray/serve.yaml for this machine, by Ray's own command."""
    config = yaml.safe_load((ROOT / "docker" / "ray" / "serve.yaml").read_text())
    config["http_options"] |= {"host": "127.0.0.1", "port": port}
    (application,) = config["applications"]
    application["args"] = {"bundle": str(DIGITS), "insecure": True, "log_format": "json", **settings}
    (deployment,) = application["deployments"]
    deployment["ray_actor_options"] = {"num_cpus": 0.5}
    deployment["autoscaling_config"]["max_replicas"] = 2
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [
        sys.executable,
        "-m",
        "ray.serve.scripts",
        "deploy",
        str(path),
        f"--address=http://127.0.0.1:{dashboard}",
    ]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"serve deploy failed: {done.stdout}{done.stderr}")


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll until it holds; raises BenchmarkError when it does not in time."""
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"not ready within {READY_SECONDS:g} s")
        time.sleep(0.5)


def _ready(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/health/ready", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def _running(dashboard: int) -> bool:
    """Whether Ray Serve calls the application running, which it does not while replicas are exchanged."""
    headers = {"Authorization": f"Bearer {ENVIRONMENT['RAY_AUTH_TOKEN']}"}
    answer = httpx.get(f"http://127.0.0.1:{dashboard}/api/serve/applications/", headers=headers, timeout=30)
    return bool(json.loads(answer.content)["applications"]["limpid"]["status"] == "RUNNING")


async def _load(server: Server, options: argparse.Namespace) -> list[Outcome]:
    png = encode_png(example_image(read_manifest(DIGITS).image))
    requests: Mapping[int, bytes] = {options.steps: purify_request(server, png, options.steps)}
    return await offer(
        server, poisson_arrivals(options.rate, options.seconds, {options.steps: 1.0}, 0), requests, 120.0
    )


def _say(title: str, outcomes: Sequence[Outcome]) -> None:
    answered = sorted(each.seconds for each in outcomes if each.answered)
    console.print(f"{title}: {len(outcomes)} requests, answers {dict(Counter(each.answer for each in outcomes))}")
    retry = sum(each.turned_away for each in outcomes)
    if answered:
        middle, late = (answered[int(share * (len(answered) - 1))] for share in (0.5, 0.99))
        console.print(f"  median {middle:.2f} s, 99 % within {late:.2f} s; {retry} told to retry")


if __name__ == "__main__":
    main()
