from pathlib import Path

import pytest

from infra.local.errors import LocalServerError
from infra.local.process import ProcessId
from infra.local.stack import LocalServers, stack_identity
from infra.local.state import forget, recall, remember, state_path
from infra.local.valkey import Valkey


def test_what_is_remembered_is_recalled_until_forgotten(tmp_path: Path) -> None:
    """A server's port and process come back from servers.json; the file goes with the last server."""
    server = Valkey(tmp_path, "ours", 20_001)
    server.process_id = ProcessId(4_000_000, 1.5)
    remember(tmp_path, [server, Valkey(tmp_path, "never started")])
    assert recall(tmp_path) == {"valkey": (20_001, ProcessId(4_000_000, 1.5))}
    forget(tmp_path, ["valkey"])
    assert recall(tmp_path) == {}
    assert not state_path(tmp_path).exists()


@pytest.mark.parametrize("text", ["{", "\xff", "[]", '{"kafka": 1}', '{"kafka": {}}', '{"kafka": {"port": "1"}}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    """A servers.json that is no JSON, or other JSON, is an error that names the file."""
    state_path(tmp_path).write_text(text, encoding="latin-1")
    with pytest.raises(LocalServerError, match=r"servers\.json"):
        recall(tmp_path)


def test_a_folder_keeps_its_identity(tmp_path: Path) -> None:
    """Two folders never share an identity, one folder never changes its own, and it never looks like an option."""
    identities = {stack_identity(folder) for folder in _folders(tmp_path, 50)}
    assert len(identities) == 50
    assert not any(identity.startswith("-") for identity in identities)
    assert stack_identity(tmp_path / "0") == stack_identity(tmp_path / "0")


def test_the_environment_names_the_chosen_servers_only(tmp_path: Path) -> None:
    """Each chosen server has its variable, in the form that its clients take."""
    servers = LocalServers(tmp_path, ("valkey", "kafka"), ports={"valkey": 20_001, "kafka": 20_002})
    assert servers.environment() == {
        "HEADRACE_REDIS": "redis://127.0.0.1:20001/0",
        "HEADRACE_KAFKA": "127.0.0.1:20002",
    }


def test_an_unknown_server_is_named(tmp_path: Path) -> None:
    """A misspelt server is an error, not silence."""
    with pytest.raises(LocalServerError, match="redis"):
        LocalServers(tmp_path, ("redis",))


def _folders(root: Path, count: int) -> list[Path]:
    folders = [root / str(number) for number in range(count)]
    for folder in folders:
        folder.mkdir()
    return folders
