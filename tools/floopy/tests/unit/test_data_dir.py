"""The data directory: private files, replaced whole, one owner at a time."""

import json
import os
import stat

import pytest

from floopy.stack.data_dir import (
    ROTATE_AT,
    Credentials,
    DataDir,
    DataDirInUseError,
    NotUpError,
    Remembered,
)
from floopy.stack.supervisor import ProcessRecord

CREDENTIALS = Credentials(
    base_url="http://127.0.0.1:8080/v1",
    api_key="sk-1",
    org_id="org_1",
    dashboard_url=None,
    mongo_uri="mongodb://127.0.0.1:27017",
    mongo_database="floopy",
    kafka_bootstrap_servers="127.0.0.1:9092",
    topic_prefix="",
    simulator_url=None,
)


@pytest.fixture
def data_dir(tmp_path) -> DataDir:
    directory = DataDir(tmp_path / "data")
    directory.path.mkdir()
    return directory


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_credentials_are_for_the_owner_alone(data_dir) -> None:
    data_dir.write_credentials(CREDENTIALS)

    assert mode(data_dir.credentials_file) == 0o600
    assert data_dir.read_credentials() == CREDENTIALS


def test_credentials_have_the_promised_fields(data_dir) -> None:
    data_dir.write_credentials(CREDENTIALS)

    assert set(json.loads(data_dir.credentials_file.read_text())) == {
        "base_url", "api_key", "org_id", "dashboard_url", "mongo_uri", "mongo_database",
        "kafka_bootstrap_servers", "topic_prefix", "simulator_url",
    }  # fmt: skip


def test_credentials_of_a_system_that_is_not_up_say_so(data_dir) -> None:
    with pytest.raises(NotUpError, match="floopy up"):
        data_dir.read_credentials()


def test_processes_are_replaced_in_one_step(data_dir) -> None:
    data_dir.write_processes([ProcessRecord("mongod", 17, 27017)])
    with data_dir.processes_file.open() as old:
        data_dir.write_processes([])

        assert [row["name"] for row in json.load(old)] == ["mongod", "floopy-up"]
    assert json.loads(data_dir.processes_file.read_text()) == [
        {"name": "floopy-up", "pid": os.getpid(), "port": None}
    ]
    assert mode(data_dir.processes_file) == 0o600


def test_secret_key_is_generated_once(data_dir) -> None:
    key = data_dir.secret_key()

    assert len(key) >= 32
    assert data_dir.secret_key() == key
    assert mode(data_dir.path / "secret.key") == 0o600


def test_next_start_remembers(data_dir) -> None:
    assert data_dir.remembered() == Remembered()
    state = Remembered(ports={"mongod": 27017}, org_id="org_1", api_key="sk-1")

    data_dir.remember(state)

    assert data_dir.remembered() == state
    assert mode(data_dir.path / "state.json") == 0o600


def test_second_owner_is_refused(data_dir) -> None:
    with data_dir.locked(), pytest.raises(DataDirInUseError, match="another floopy up"), data_dir.locked():
        pass


def test_directory_is_free_again_afterwards(data_dir) -> None:
    with data_dir.locked():
        pass

    with data_dir.locked():
        pass


def test_big_logs_are_set_aside(data_dir) -> None:
    data_dir.logs.mkdir()
    big, small = data_dir.logs / "floopy-api.log", data_dir.logs / "mongod.log"
    with big.open("wb") as log:
        log.truncate(ROTATE_AT + 1)
    small.write_text("kept")

    data_dir.rotate_logs()

    assert not big.exists()
    assert (data_dir.logs / "floopy-api.log.1").exists()
    assert small.read_text() == "kept"
