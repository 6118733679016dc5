"""The manifests: valid by Kubernetes' own schemas, agreeing with each other and with what the programs take."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from models.__main__ import _parser
from models.training.recipe import load_recipe
from service.__main__ import LINGER_SECONDS
from service.auth import PUBLIC
from service.settings import load_settings
from service.system import system
from tests.docker.deployment_files import DOCKER, documents, merged

FOLDER = DOCKER / "kubernetes"
MANIFESTS = [document for name in ("serving.yaml", "training.yaml") for document in documents(FOLDER / name)]
NAMES = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in MANIFESTS}
DEPLOYMENT = NAMES["Deployment", "limpid"]
JOB = NAMES["Job", "limpid-train"]
WORKLOADS = [DEPLOYMENT, JOB]
NEWEST = kubernetes_validate.latest_version()


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(workload)["containers"]
    assert isinstance(only, dict)
    return only


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_schemas_allow_it(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, NEWEST, strict=True)


def test_schemas_forbid_what_is_misspelt() -> None:
    wrong = merged(DEPLOYMENT, {"spec": {"template": {"spec": {"enableServiceLink": False}}}})
    with pytest.raises(kubernetes_validate.ValidationError, match="enableServiceLink"):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_the_patch_for_gpus_makes_a_valid_deployment() -> None:
    (patch,) = documents(FOLDER / "gpu.yaml")
    (given,) = patch["spec"]["template"]["spec"]["containers"]
    one = merged(container(DEPLOYMENT), given)  # Kubernetes finds the container by its name
    whole = merged(DEPLOYMENT, {"spec": {"template": {"spec": patch["spec"]["template"]["spec"] | {"containers": []}}}})
    whole["spec"]["template"]["spec"]["containers"] = [one]
    kubernetes_validate.validate(whole, NEWEST, strict=True)
    assert given["name"] == container(DEPLOYMENT)["name"]
    assert one["resources"]["limits"] == one["resources"]["requests"]
    assert one["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert one["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda each: each["kind"])
def test_pods_are_hardened(workload: dict[str, Any]) -> None:
    spec, only = pod(workload), container(workload)
    assert spec["securityContext"] | {"runAsUser": 10001, "runAsNonRoot": True} == spec["securityContext"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert only["resources"]["limits"].keys() >= {"cpu", "memory"}
    assert {mount["name"] for mount in only["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


def test_selectors_find_their_pods() -> None:
    for workload in WORKLOADS:
        labels, name = workload["spec"]["template"]["metadata"]["labels"], workload["metadata"]["name"]
        assert NAMES["Service", name]["spec"]["selector"].items() <= labels.items()
        assert NAMES["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        for spread in pod(workload)["topologySpreadConstraints"]:
            assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"].items() <= labels_of(DEPLOYMENT).items()
    budget = NAMES["PodDisruptionBudget", "limpid"]["spec"]["selector"]["matchLabels"]
    assert budget.items() <= labels_of(DEPLOYMENT).items()


def labels_of(workload: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def test_the_server_takes_its_settings_and_has_time_to_stop(tmp_path: Path) -> None:
    config = tmp_path / "limpid.toml"
    config.write_text(NAMES["ConfigMap", "limpid"]["data"]["limpid.toml"])
    environment = {entry["name"]: entry["value"] for entry in container(DEPLOYMENT)["env"]}
    mounts = {mount["name"]: mount for mount in container(DEPLOYMENT)["volumeMounts"]}
    assert environment["LIMPID_CONFIG"] == mounts["config"]["mountPath"]
    settings = load_settings([], environment | {"LIMPID_CONFIG": str(config)})
    assert settings.keys_file is not None
    assert str(settings.keys_file.parent) == mounts["keys"]["mountPath"]
    grace = pod(DEPLOYMENT)["terminationGracePeriodSeconds"]
    assert grace > settings.drain_delay + settings.drain_timeout + 2 * LINGER_SECONDS
    # Endpoints must have noticed before the server takes no more.
    assert settings.drain_delay > 0
    assert container(DEPLOYMENT)["ports"][0]["containerPort"] == settings.port


def test_probes_ask_open_routes() -> None:
    paths = {getattr(route, "path", None) for route in system.routes}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container(DEPLOYMENT)[probe]["httpGet"]
        assert asked["path"] in paths
        assert asked["path"].startswith(PUBLIC)
        assert asked["port"] == container(DEPLOYMENT)["ports"][0]["name"]


def test_it_scales_on_a_metric_of_the_service() -> None:
    scaler = NAMES["HorizontalPodAutoscaler", "limpid"]["spec"]
    (metric,) = scaler["metrics"]
    source = (DOCKER.parent / "service" / "metrics.py").read_text()
    assert f'("{metric["pods"]["metric"]["name"]}",' in source
    assert "replicas" not in DEPLOYMENT["spec"]
    assert scaler["minReplicas"] > 1


def test_the_training_job_is_what_its_launcher_and_the_program_take() -> None:
    spec, only = JOB["spec"], container(JOB)
    environment = {entry["name"]: entry.get("value") for entry in only["env"]}
    launcher = (DOCKER / "train" / "launch.sh").read_text()
    read = set(re.findall(r"\$\{(\w+):-", launcher))
    assert environment.keys() - {"LIMPID_CACHE", "MPLCONFIGDIR"} <= read
    assert int(environment["MACHINES"] or 0) == spec["completions"] == spec["parallelism"]
    assert spec["completionMode"] == "Indexed"
    service = NAMES["Service", "limpid-train"]
    assert environment["MASTER"] == f"{JOB['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod(JOB)["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    port = re.search(r"\$\{PORT:-(\d+)\}", launcher)
    assert port is not None
    assert service["spec"]["ports"][0]["port"] == int(port[1])
    options = _parser().parse_args(["train", *only["args"]])
    assert load_recipe(options.recipe, []).kind == "energy"
    assert any(options.out.is_relative_to(mount["mountPath"]) for mount in only["volumeMounts"])
