"""A network on which commands and answers are late."""

import asyncio
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

MULTI, EXEC = b"\r\nMULTI\r\n", b"\r\nEXEC\r\n"
ERROR = re.compile(rb"^-(OOM|NOPERM).*?\r\n", re.MULTILINE)


class SlowNetwork:
    """A way to a server that keeps the next commands with such words in them until told to deliver, each in turn.

    What is answered after the first error comes only when the client has said something more.
    """

    def __init__(self, url: str, keep: Sequence[bytes]) -> None:
        self._target = urlsplit(url)
        self._keep = list(keep)
        self._late = asyncio.Event()
        self.kept: asyncio.Queue[tuple[asyncio.StreamWriter, bytes]] = asyncio.Queue()
        self._answered = asyncio.Event()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection(self._target.hostname, self._target.port)
        back = asyncio.create_task(self._back(there, writer))
        while data := await reader.read(1 << 16):
            self._late.set()
            if self._keep and self._keep[0] in data:
                del self._keep[0]
                self.kept.put_nowait((to, data))
            else:
                to.write(data)
        self._late.set()
        await back

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if error := ERROR.search(data):
                writer.write(data[: error.end()])
                data = data[error.end() :]
                self._answered.set()
                self._late.clear()
                await self._late.wait()
            writer.write(data)
            self._answered.set()
        writer.close()

    async def deliver(self) -> None:
        """Let what was kept longest arrive, and wait until the server has dealt with it."""
        to, data = await asyncio.wait_for(self.kept.get(), 5)
        self._answered.clear()
        to.write(data)
        await asyncio.wait_for(self._answered.wait(), 5)

    async def holding(self, count: int = 1) -> None:
        """Wait until so many are kept."""
        for one in [await self.kept.get() for _ in range(count)]:
            self.kept.put_nowait(one)
