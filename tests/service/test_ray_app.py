"""What Ray Serve is given: settings, the warm application, health and load; and the whole behind a real proxy."""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from PIL import Image

from service.errors import SettingsError, UnavailableError
from service.keys import new_key
from service.ray_app import Replica, check_settings, make_application
from service.ray_scaling import METRIC, QueueSeconds
from service.settings import Settings
from tests.ray_cluster import free_port, local_cluster
from tests.server_process import DIGITS

# Ray's own modules use what pydantic has deprecated.
with_ray = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_as_many_replicas_as_bring_the_waiting_work_to_the_target() -> None:
    policy = QueueSeconds(target_seconds=4.0)

    def wanted(*seconds: float) -> float:
        metrics = {METRIC: dict(enumerate(seconds))} if seconds else {}
        return policy(SimpleNamespace(aggregated_metrics=metrics, target_num_replicas=3))[0]

    assert wanted(10.0, 2.0) == 3.0
    assert wanted(30.0, 30.0) == 15.0
    assert wanted(0.0, 0.0) == 0.0  # Ray Serve keeps its own minimum
    assert wanted() == 3  # nothing has been told yet
    with pytest.raises(ValueError, match=r"above 0, got 0\.0"):
        QueueSeconds(0.0)


def test_open_servers_and_secrets_in_the_dashboard_are_refused(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(new_key("team", "infer")[1].to_toml())
    check_settings(Settings(keys_file=keys))
    check_settings(Settings(insecure=True))
    with pytest.raises(SettingsError, match="no keys are configured"):
        check_settings(Settings())
    with pytest.raises(SettingsError, match="dashboard"):
        check_settings(Settings.model_validate({"api_keys": "team:secret"}))


def test_a_replica_starts_warm_and_is_unhealthy_without_its_engine() -> None:
    replica = Replica()
    replica.app = make_application(Settings(bundle=DIGITS, insecure=True))

    async def run() -> None:
        async with replica.app.router.lifespan_context(replica.app):
            service = replica.app.state.service
            assert service.engine.ready
            replica.check_health()
            assert replica.record_autoscaling_stats() == {METRIC: 0.0}
            with service.admission.admit(1000, 100.0):
                assert replica.record_autoscaling_stats()[METRIC] == pytest.approx(1000 / service.engine.rate)
            service.engine.stop()
            with pytest.raises(UnavailableError, match="last sign of life"):
                replica.check_health()

    asyncio.run(run())


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of the digits bundle behind Ray Serve's proxy, and a key's secret."""
    ray = pytest.importorskip("ray", reason="needs Ray: make test-ray")
    from ray import serve

    from service.ray_app import build

    folder = tmp_path_factory.mktemp("ray")
    secret, key = new_key("team", "infer")
    (folder / "keys.toml").write_text(key.to_toml())
    port = free_port()
    with local_cluster(folder, "--include-dashboard=false") as running:
        ray.init(running.address, log_to_driver=False, logging_level="error")
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(build(Settings(bundle=DIGITS, keys_file=folder / "keys.toml")))
            yield f"http://127.0.0.1:{port}", secret
        finally:
            serve.shutdown()
            ray.shutdown()


@with_ray
def test_the_service_behind_rays_proxy_is_the_service(deployed: tuple[str, str]) -> None:
    """Warm at once, guarded, with its own errors, and an answer of every field."""
    url, secret = deployed
    picture = io.BytesIO()
    Image.new("L", (8, 8), 40).save(picture, "PNG")
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/health/ready").status_code == 200
        refused = client.post("/classify", files={"image": picture.getvalue()})
        assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")
        client.headers["X-API-Key"] = secret
        answer = client.post("/classify", files={"image": picture.getvalue()}, data={"steps": "5", "replicates": "2"})
        assert answer.status_code == 200
        assert (answer.json()["steps"], answer.json()["replicates"]) == (5, 2)
        wrong = client.post("/classify", files={"image": b"GIF89a"})
        assert (wrong.status_code, wrong.json()["title"]) == (415, "Unsupported image format")


@with_ray
def test_the_files_of_the_deployment_are_valid_and_agree() -> None:
    """serve.yaml passes Ray's own schema, and the RayService holds the very same."""
    pytest.importorskip("ray", reason="needs Ray: make test-ray")
    import yaml
    from ray.serve.schema import ServeDeploySchema

    folder = Path(__file__).parents[2] / "docker" / "ray"
    config = yaml.safe_load((folder / "serve.yaml").read_text())
    (application,) = ServeDeploySchema.model_validate(config).applications
    Settings.model_validate(application.args)
    service, policy = yaml.safe_load_all((folder / "rayservice.yaml").read_text())
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == config
    assert [port["port"] for port in policy["spec"]["ingress"][0]["ports"]] == [config["http_options"]["port"]]
    compose = yaml.safe_load((folder.parent / "compose.ray.yaml").read_text())
    published = {name: each["ports"] for name, each in compose["services"].items() if "ports" in each}
    assert published == {"head": ["127.0.0.1:8000:8000"]}
