"""`servers.json`: which detached servers run on a data folder."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import LocalServerError
from .process import ProcessId
from .server import Server


def state_path(folder: Path) -> Path:
    """Where the file is."""
    return folder / "servers.json"


def recall(folder: Path) -> dict[str, tuple[int, ProcessId]]:
    """Port and process of every recorded server, whether or not it still runs."""
    return {name: (entry["port"], ProcessId(entry["pid"], entry["started"])) for name, entry in _read(folder).items()}


def remember(folder: Path, servers: Iterable[Server]) -> None:
    """Record running servers, beside those recorded before."""
    entries = _read(folder)
    for server in servers:
        if server.process_id is not None:
            entries[server.name] = {
                "address": server.address,
                "port": server.port,
                "pid": server.process_id.pid,
                "started": server.process_id.started,
                "log": str(server.log_path),
            }
    _write(folder, entries)


def forget(folder: Path, names: Iterable[str]) -> None:
    """Strike servers off the record; the file goes with the last one."""
    gone = set(names)
    _write(folder, {name: entry for name, entry in _read(folder).items() if name not in gone})


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    path = state_path(folder)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise LocalServerError(f"{path} is not readable: {error}") from error
    if not isinstance(entries, dict) or not all(map(_sound, entries.values())):
        raise LocalServerError(f"{path} does not say port, pid and start of each server")
    return entries


def _sound(entry: Any) -> bool:
    kinds = {"port": int, "pid": int, "started": float | int}
    return isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in kinds.items())


def _write(folder: Path, entries: dict[str, dict[str, Any]]) -> None:
    path = state_path(folder)
    if not entries:
        path.unlink(missing_ok=True)
        return
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
