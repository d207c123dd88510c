"""Tells the person at the terminal what is running and what to try first."""

from collections.abc import Sequence

from rich.console import Console

from floopy.stack.data_dir import Credentials, DataDir
from floopy.stack.services import API, SIMULATOR
from floopy.stack.supervisor import ProcessRecord


def print_running(
    console: Console, data_dir: DataDir, credentials: Credentials, running: Sequence[ProcessRecord]
) -> None:
    """Never wraps or shortens: these lines are there to be copied."""
    rows = _rows(credentials, running)
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {where}" for name, where in rows]
    text = "\n".join([*lines, "", _first_step(data_dir, credentials)])
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _rows(credentials: Credentials, running: Sequence[ProcessRecord]) -> list[tuple[str, str]]:
    rows = [("API", credentials.base_url)]
    if credentials.simulator_url:
        rows.append(("Provider simulator", credentials.simulator_url))
    rows.append(("MongoDB", f"{credentials.mongo_uri} (database {credentials.mongo_database})"))
    rows.append(("Kafka", credentials.kafka_bootstrap_servers))
    shown_above = {API, SIMULATOR, "mongod", "broker"}
    rows += [
        (f"{record.name} metrics", f"http://127.0.0.1:{record.port}/metrics")
        for record in running
        if record.name not in shown_above
    ]
    return rows


def no_account_yet(credentials: Credentials) -> str:
    return f"""
No batch can run yet: the organisation has no account at a provider. Set OPENAI_API_KEY and start again, or
  floopy accounts create --org {credentials.org_id} --provider openai --api-key-stdin"""


def _first_step(data_dir: DataDir, credentials: Credentials) -> str:
    return f"""\
Key and addresses: {data_dir.credentials_file}
Logs:              {data_dir.logs}

Try it:
  export OPENAI_BASE_URL={credentials.base_url}
  export OPENAI_API_KEY={credentials.api_key}
  curl -s "$OPENAI_BASE_URL/batches" -H "Authorization: Bearer $OPENAI_API_KEY"

A whole batch from a file:
  floopy batches run requests.jsonl -o answers.jsonl --data-dir {data_dir.path}

Ctrl-C stops everything."""
