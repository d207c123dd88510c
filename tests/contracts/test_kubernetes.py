"""deploy/k8s says what the code offers: one Deployment per service, real settings and probes."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from setting_names import is_setting

ROOT = Path(__file__).parents[2]
BASE = ROOT / "deploy/k8s/base"
SERVICES = sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml"))


def _documents() -> list[dict[str, Any]]:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in BASE.glob("*.yaml"))
    return [doc for name in listed for doc in yaml.safe_load_all((BASE / name).read_text())]


def _deployment(service: str) -> dict[str, Any]:
    found = [
        d for d in _documents() if d["kind"] == "Deployment" and d["metadata"]["name"] == f"floopy-{service}"
    ]
    assert len(found) == 1
    return found[0]


def test_there_is_one_deployment_per_service_and_no_other() -> None:
    names = {d["metadata"]["name"] for d in _documents() if d["kind"] == "Deployment"}

    assert names == {f"floopy-{service}" for service in SERVICES}


@pytest.mark.parametrize("service", SERVICES)
def test_the_command_is_the_services_console_script(service: str) -> None:
    scripts = tomllib.loads((ROOT / "services" / service / "pyproject.toml").read_text())["project"][
        "scripts"
    ]
    pod = _deployment(service)["spec"]["template"]["spec"]

    assert [pod["containers"][0]["command"][0]] == list(scripts)


@pytest.mark.parametrize("service", SERVICES)
def test_pods_run_with_least_privilege(service: str) -> None:
    pod = _deployment(service)["spec"]["template"]["spec"]
    container = pod["containers"][0]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("service", SERVICES)
def test_liveness_asks_the_process_and_readiness_what_it_needs(service: str) -> None:
    container = _deployment(service)["spec"]["template"]["spec"]["containers"][0]

    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert {"name": "metrics", "containerPort": 9100} in container["ports"]


def test_every_variable_is_a_setting() -> None:
    config = next(d for d in _documents() if d["kind"] == "ConfigMap")
    named = set(config["data"]) | {
        variable["name"]
        for service in SERVICES
        for variable in _deployment(service)["spec"]["template"]["spec"]["containers"][0].get("env", [])
    }

    assert "FLOOPY_API__PORT" in named
    assert [name for name in sorted(named) if not is_setting(name)] == []
