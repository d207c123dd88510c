"""docker-compose.yml and the Dockerfile, held by a schema and by what the code really offers.

No engine is needed: every variable must be a setting, every command a console script, every port and health
route real, every named thing defined.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from aiohttp import ClientSession
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints
from setting_names import is_setting

from floopy_common.chassis.probes import Probes, serving_probes
from floopy_common.settings import Settings

ROOT = Path(__file__).parents[2]
SERVICES = {"api", "submitter", "reconciler", "metering", "logging", "feedback"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Build(_Strict):
    context: str
    dockerfile: str
    args: dict[str, str]


class _Condition(_Strict):
    condition: Annotated[
        str, StringConstraints(pattern="^(service_started|service_healthy|service_completed_successfully)$")
    ]


class _HealthCheck(_Strict):
    test: list[str]
    interval: Annotated[str, StringConstraints(pattern=r"^\d+s$")]
    timeout: Annotated[str, StringConstraints(pattern=r"^\d+s$")]
    retries: int


class _Service(_Strict):
    image: str | None = None
    build: _Build | None = None
    command: list[str] = Field(default_factory=list)
    environment: dict[str, str] = Field(default_factory=dict)
    depends_on: dict[str, _Condition] = Field(default_factory=dict)
    healthcheck: _HealthCheck | None = None
    ports: list[Annotated[str, StringConstraints(pattern=r"^\d+:\d+$")]] = Field(default_factory=list)
    profiles: list[str] = Field(default_factory=list)
    volumes: list[str] = Field(default_factory=list)
    tmpfs: list[str] = Field(default_factory=list)
    restart: str | None = None
    stop_grace_period: str | None = None
    init: bool = False
    read_only: bool = False


class _Compose(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str
    services: dict[str, _Service]
    volumes: dict[str, None]


@pytest.fixture(scope="module")
def compose() -> _Compose:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert all(key.startswith("x-") for key in loaded.keys() - {"name", "services", "volumes"})
    return _Compose.model_validate(loaded)


def _console_scripts() -> set[str]:
    scripts: set[str] = set()
    for path in (*ROOT.glob("services/*/pyproject.toml"), *ROOT.glob("tools/*/pyproject.toml")):
        scripts |= tomllib.loads(path.read_text())["project"].get("scripts", {}).keys()
    return scripts


def _dockerfile() -> str:
    return (ROOT / "docker/Dockerfile").read_text()


def _variables(compose: _Compose) -> set[str]:
    named = {name for service in compose.services.values() for name in service.environment}
    return {name for name in named if name.startswith("FLOOPY_")} | set(
        re.findall(r"FLOOPY_[A-Z_]+", _dockerfile())
    )


def test_every_variable_is_a_setting(compose: _Compose) -> None:
    variables = _variables(compose)

    assert variables >= {"FLOOPY_MONGO__URI", "FLOOPY_API__PORT", "FLOOPY_METRICS_PORT"}
    assert [name for name in sorted(variables) if not is_setting(name)] == []
    assert not is_setting("FLOOPY_MONGO__URL")


def test_the_environment_makes_valid_settings(compose: _Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in compose.services["api"].environment.items():
        monkeypatch.setenv(name, re.sub(r"\$\{[A-Z_]+:[-?]([^}]*)\}", r"\1", value))

    settings = Settings()

    assert settings.providers.openai.base_url.endswith("/v1")
    assert isinstance(settings.secret_key, SecretStr)
    assert f"{settings.api.port}:{settings.api.port}" in compose.services["api"].ports


def test_there_is_one_service_each(compose: _Compose) -> None:
    folders = {path.parent.name for path in ROOT.glob("services/*/pyproject.toml")}

    assert folders == SERVICES
    assert folders <= compose.services.keys()
    for name in folders:
        assert compose.services[name].command == [f"floopy-{name}"]
        build = compose.services[name].build
        assert build is not None
        assert build.args == {"SERVICE": name}


def test_every_command_of_ours_is_a_console_script(compose: _Compose) -> None:
    ours = [service for service in compose.services.values() if service.build is not None]

    assert len(ours) == len(SERVICES) + 2
    assert {service.command[0] for service in ours} <= _console_scripts()


async def test_every_health_check_asks_a_route_that_exists(compose: _Compose) -> None:
    metrics_port = re.search(r"FLOOPY_METRICS_PORT=(\d+)", _dockerfile())
    assert metrics_port is not None
    probes = Probes()
    async with serving_probes(probes, "127.0.0.1", 0), ClientSession() as client:
        for name in SERVICES:
            check = compose.services[name].healthcheck
            assert check is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", check.test[-1])
            assert found is not None
            assert found.group(1) == metrics_port.group(1)
            async with client.get(f"http://127.0.0.1:{probes.port}{found.group(2)}") as answer:
                assert answer.status == 200


def test_the_simulator_listens_where_it_is_asked(compose: _Compose) -> None:
    simulator = compose.services["simulator"]

    assert simulator.profiles == ["simulator"]
    port = simulator.command[simulator.command.index("--port") + 1]
    assert simulator.healthcheck is not None
    assert f":{port}/healthz" in simulator.healthcheck.test[-1]


def test_what_is_referred_to_is_defined(compose: _Compose) -> None:
    named = {v.partition(":")[0] for s in compose.services.values() for v in s.volumes if v[0] not in "./"}
    needed = {name for service in compose.services.values() for name in service.depends_on}
    mounted = [
        v.partition(":")[0] for s in compose.services.values() for v in s.volumes if v.startswith("./")
    ]

    assert named == compose.volumes.keys()
    assert needed <= compose.services.keys()
    assert all((ROOT / path).is_file() for path in mounted)


def test_prometheus_scrapes_every_service(compose: _Compose) -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())

    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]

    assert {target.partition(":")[0] for target in targets} == SERVICES
    assert {target.partition(":")[2] for target in targets} == {"9100"}
    assert compose.services["prometheus"].image is not None


def test_the_dockerfile_runs_unprivileged_with_locked_requirements() -> None:
    text = _dockerfile()

    assert "--require-hashes" in text
    assert re.search(r"^USER \d+$", text, re.MULTILINE)
    for source in re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE):
        assert (ROOT / source).exists()
