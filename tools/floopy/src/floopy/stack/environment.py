"""The settings that `floopy up` hands to the services it starts."""

import os
from pathlib import Path

from pydantic import SecretStr

from floopy_common.settings import Settings

OPENAI_BASE_URL = "FLOOPY_PROVIDERS__OPENAI__BASE_URL"
ANTHROPIC_BASE_URL = "FLOOPY_PROVIDERS__ANTHROPIC__BASE_URL"
MONGO_URI = "FLOOPY_MONGO__URI"
BOOTSTRAP_SERVERS = "FLOOPY_KAFKA__BOOTSTRAP_SERVERS"
SECRET_KEY = "FLOOPY_SECRET_KEY"
FAIL_AT = "FLOOPY_FAIL_AT"


def is_set(name: str) -> bool:
    """Tells whether the person who started us has chosen a setting; case does not matter, as for services."""
    return any(variable.upper() == name and value for variable, value in os.environ.items())


def local_settings(
    settings: Settings, *, mongo_uri: str, bootstrap_servers: str, idempotent: bool, secret_key: str
) -> Settings:
    """The settings of the environment, completed by where this machine's backends are."""
    mongo = settings.mongo.model_copy(update={"uri": mongo_uri})
    kafka = settings.kafka.model_copy(
        update={"bootstrap_servers": bootstrap_servers, "idempotent": idempotent}
    )
    return settings.model_copy(update={"mongo": mongo, "kafka": kafka, "secret_key": SecretStr(secret_key)})


def service_environment(settings: Settings, simulator_url: str | None, work_dir: Path) -> dict[str, str]:
    """What every service is told on top of the environment it inherits."""
    environment = {
        MONGO_URI: settings.mongo.uri,
        BOOTSTRAP_SERVERS: settings.kafka.bootstrap_servers,
        "FLOOPY_KAFKA__IDEMPOTENT": str(settings.kafka.idempotent).lower(),
        SECRET_KEY: settings.secret_key.get_secret_value(),
        "FLOOPY_WORK_DIR": str(work_dir),
    }
    if simulator_url is not None:
        played = {
            OPENAI_BASE_URL: f"{simulator_url}/openai/v1",
            ANTHROPIC_BASE_URL: f"{simulator_url}/anthropic",
        }
        environment |= {name: url for name, url in played.items() if not is_set(name)}
    return environment
