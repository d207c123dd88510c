"""The commands for organisations, keys and accounts: on the environment's database, on a data directory's."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from floopy.cli import make_app
from floopy.stack.data_dir import Credentials, DataDir
from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.settings import Settings
from floopy_common.stores.accounts import AccountStore
from floopy_common.stores.api_keys import ApiKeyStore

SECRET = "a secret of at least 32 characters"


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(make_app(), arguments, input=stdin)


def answer(*arguments: str, stdin: str = "") -> Any:
    result = run(*arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(autouse=True)
def environment(
    mongo: Mongo, mongo_uri: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # no .floopy of the checkout
    monkeypatch.setenv("FLOOPY_MONGO__URI", mongo_uri)
    monkeypatch.setenv("FLOOPY_MONGO__DATABASE", mongo_database)
    monkeypatch.setenv("FLOOPY_SECRET_KEY", SECRET)


@pytest.fixture
def org() -> str:
    return str(answer("orgs", "create", "Acme", "--plan", "pro")["id"])


def keyring() -> Keyring:
    return Keyring(Settings().secret_key)


def test_organisations_are_made_and_listed(org: str) -> None:
    [listed] = answer("orgs", "list")

    assert listed["id"] == org
    assert (listed["name"], listed["plan"]) == ("Acme", "pro")


def test_an_unknown_plan_names_the_choices() -> None:
    result = run("orgs", "create", "Acme", "--plan", "gold")

    assert result.exit_code == 1
    assert "free, pro, enterprise" in result.stderr


async def test_a_key_works_until_it_is_revoked(org: str, mongo: Mongo) -> None:
    made = await asyncio.to_thread(answer, "keys", "create", "--org", org)
    assert set(made) == {"id", "org_id", "api_key"}
    assert made["org_id"] == org
    store = ApiKeyStore(mongo, keyring())
    assert await store.find_by_key(made["api_key"]) is not None

    [listed] = await asyncio.to_thread(answer, "keys", "list", "--org", org)
    assert listed["id"] == made["id"]
    assert made["api_key"] not in json.dumps(listed)

    revoke = ("keys", "revoke", made["id"], "--org", org)
    assert await asyncio.to_thread(answer, *revoke) == {"id": made["id"], "revoked": True}
    assert await store.find_by_key(made["api_key"]) is None
    assert (await asyncio.to_thread(run, *revoke)).exit_code == 1


async def test_an_account_is_sealed_listed_and_deleted(org: str, mongo: Mongo) -> None:
    create = ("accounts", "create", "--org", org, "--provider", "openai", "--api-key-stdin")
    url = ("--base-url", "http://10.0.0.1:8000/v1/")

    made = await asyncio.to_thread(answer, *create, *url, stdin="sk-theirs\n")

    assert set(made) == {"id"}
    store = AccountStore(mongo, keyring())
    account = await store.get(made["id"])
    assert account is not None
    assert store.open_key(account).get_secret_value() == "sk-theirs"
    [listed] = await asyncio.to_thread(answer, "accounts", "list", "--org", org)
    assert (listed["id"], listed["provider"]) == (made["id"], "openai")
    assert listed["base_url"] == "http://10.0.0.1:8000/v1"
    assert "sk-theirs" not in json.dumps(listed)

    delete = ("accounts", "delete", made["id"], "--org", org)
    await asyncio.to_thread(answer, *delete)

    assert await asyncio.to_thread(answer, "accounts", "list", "--org", org) == []
    assert (await asyncio.to_thread(run, *delete)).exit_code == 1


def test_a_key_on_the_command_line_is_not_offered(org: str) -> None:
    result = run("accounts", "create", "--org", org, "--provider", "openai", stdin="sk-x")

    assert result.exit_code == 1
    assert "--api-key-stdin" in result.stderr


@pytest.mark.parametrize(
    ("provider", "url", "key", "said"),
    [
        ("acme", None, "sk-x", "unknown provider"),
        ("openai", "ftp://x", "sk-x", "http"),
        ("openai", None, "  \n", "empty"),
    ],
)
def test_accounts_that_cannot_be_are_refused(
    org: str, provider: str, url: str | None, key: str, said: str
) -> None:
    more = [] if url is None else ["--base-url", url]

    result = run(
        "accounts", "create", "--org", org, "--provider", provider, *more, "--api-key-stdin", stdin=key
    )

    assert result.exit_code == 1
    assert said in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("keys", "create"),
        ("keys", "list"),
        ("accounts", "list"),
        ("accounts", "create", "--provider", "openai", "--api-key-stdin"),
    ],
    ids=" ".join,
)
def test_an_unknown_organisation_is_said(command: tuple[str, ...]) -> None:
    result = run(*command, "--org", "org_none", stdin="sk-x")

    assert result.exit_code == 1
    assert "no organisation org_none" in result.stderr


def test_people_get_lines(org: str) -> None:
    assert run("orgs", "list").stdout.startswith(f"{org}  Acme  pro  ")
    assert run("orgs", "create", "Other", "--plan", "free").stdout.startswith("id: org_")


def test_a_short_secret_is_said(org: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOOPY_SECRET_KEY", "short")

    result = run("keys", "create", "--org", org)

    assert result.exit_code == 1
    assert "FLOOPY_SECRET_KEY" in result.stderr


def test_a_database_without_its_secret_is_said(org: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOOPY_SECRET_KEY")

    result = run("keys", "create", "--org", org)

    assert result.exit_code == 1
    assert "FLOOPY_SECRET_KEY" in result.stderr


def test_nowhere_to_work_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOOPY_MONGO__URI")

    result = run("orgs", "list")

    assert result.exit_code == 1
    assert "--data-dir" in result.stderr


@pytest.fixture
def data_dir(tmp_path: Path, mongo_uri: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> DataDir:
    """A directory as a running `floopy up` leaves it; the environment says nothing."""
    monkeypatch.delenv("FLOOPY_MONGO__URI")
    monkeypatch.delenv("FLOOPY_SECRET_KEY")
    directory = DataDir(tmp_path / "data")
    directory.path.mkdir()
    directory.write_credentials(
        Credentials(
            base_url="http://127.0.0.1:1/v1",
            api_key="flp_x",
            org_id="org_x",
            dashboard_url=None,
            mongo_uri=mongo_uri,
            mongo_database=mongo_database,
            kafka_bootstrap_servers="127.0.0.1:1",
            topic_prefix="",
            simulator_url=None,
        )
    )
    return directory


async def test_a_data_directory_says_where_and_with_which_secret(data_dir: DataDir, mongo: Mongo) -> None:
    secret = data_dir.secret_key()
    where = ("--data-dir", str(data_dir.path))
    org = await asyncio.to_thread(answer, "orgs", "create", "Acme", "--plan", "pro", *where)

    made = await asyncio.to_thread(answer, "keys", "create", "--org", org["id"], *where)

    store = ApiKeyStore(mongo, Keyring(Settings(secret_key=secret).secret_key))
    assert await store.find_by_key(made["api_key"]) is not None


def test_no_secret_is_made_up_for_a_system_that_was_given_one(data_dir: DataDir) -> None:
    where = ("--data-dir", str(data_dir.path))
    org_id = answer("orgs", "create", "Acme", "--plan", "pro", *where)["id"]

    result = run("keys", "create", "--org", org_id, *where)

    assert result.exit_code == 1
    assert "FLOOPY_SECRET_KEY" in result.stderr
    assert data_dir.known_secret_key() is None
