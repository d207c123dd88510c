"""What must never be committed: registry hosts, machine paths, secrets; and locks that pin everything."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.splitlines() if (ROOT / name).is_file()]


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt"])
def test_locks_pin_every_package_by_hash_and_name_no_host(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())

    assert "://" not in text
    assert len(entries) > 20
    assert [e.splitlines()[0] for e in entries if "==" not in e or "--hash=sha256:" not in e] == []


def test_no_lock_with_addresses_is_committed() -> None:
    assert not {path.name for path in _tracked()} & {"uv.lock", "poetry.lock", "Pipfile.lock"}


def test_no_registry_host_or_machine_path_is_committed() -> None:
    # written in pieces, so that this file does not contain what it looks for
    hosts = [
        "py" + r"pi\.org",
        "python" + r"hosted\.org",
        "registry" + r"\.npmjs",
        "repo1?" + r"\.maven",
        "proxy" + r"\.golang",
    ]
    paths = ["/ro" + "ot/", "/wo" + "rk/(main|shared)", "/tmp/" + "floopy/"]
    forbidden = re.compile("|".join(hosts + paths))

    found = [path for path in _tracked() if forbidden.search(path.read_text(errors="replace"))]

    assert found == []


def test_no_file_name_carries_a_space() -> None:
    assert [path for path in _tracked() if re.search(r"\s", path.name)] == []
