"""Where a command finds the system it talks to: a data directory, else the environment."""

import os
from pathlib import Path

from pydantic import SecretStr

from floopy.stack.data_dir import Credentials, DataDir, NotUpError
from floopy.stack.environment import MONGO_URI, SECRET_KEY, is_set
from floopy_common.settings import MongoSettings, Settings

DEFAULT_DATA_DIR = Path(".floopy")


def local_credentials(data_dir: Path | None) -> Credentials | None:
    """What `floopy up` has written, None where neither a directory is given nor the default one is there.

    Raises NotUpError for a given directory without a running system.
    """
    if data_dir is not None:
        return DataDir(data_dir).read_credentials()
    default = DataDir(DEFAULT_DATA_DIR)
    return default.read_credentials() if default.credentials_file.exists() else None


def api_address(data_dir: Path | None) -> tuple[str, str]:
    """Base URL and API key; never OpenAI's own address by accident. Raises NotUpError."""
    base_url, api_key = os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")
    if data_dir is None and base_url and api_key:
        return base_url, api_key
    if credentials := local_credentials(data_dir):
        return credentials.base_url, credentials.api_key
    raise NotUpError("say where: --data-dir of a floopy up, or OPENAI_BASE_URL and OPENAI_API_KEY")


def database_settings(data_dir: Path | None) -> MongoSettings:
    """The database: that of the directory, else of the environment, else of the default directory."""
    given = Settings().mongo
    if data_dir is None and is_set(MONGO_URI):
        return given
    if credentials := local_credentials(data_dir):
        return given.model_copy(update={"uri": credentials.mongo_uri, "database": credentials.mongo_database})
    raise NotUpError("say where: --data-dir of a floopy up, or FLOOPY_MONGO__URI")


def secret_key(data_dir: Path | None) -> SecretStr:
    """The secret of that system: the environment's, as for `floopy up`, else the one it has generated."""
    if is_set(SECRET_KEY):
        return Settings().secret_key
    if data_dir is None and is_set(MONGO_URI):
        raise NotUpError("say which secret its keys come from: FLOOPY_SECRET_KEY")
    known = DataDir(data_dir or DEFAULT_DATA_DIR).known_secret_key()
    if known is None:
        raise NotUpError("floopy up was started with FLOOPY_SECRET_KEY: set it here as well")
    return SecretStr(known)
