"""TLS in front of a server that has none: what comes in encrypted goes on to a Unix socket."""

import asyncio
import ssl
import threading
from contextlib import suppress
from pathlib import Path

from .ports import HOST

PIECE = 1 << 16


class TlsFront:
    """Listens on a port of the loopback with a certificate (a file with its key) and passes on to a Unix socket.

    It runs in a thread of this process, from `start` to `stop`.
    """

    def __init__(self, port: int, certificate: Path, behind: Path) -> None:
        self._port, self._behind = port, behind
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"tls-{port}", daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        serving = asyncio.start_server(self._serve, HOST, self._port, ssl=self._tls)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)

    def stop(self) -> None:
        """Listen no longer, and cut what is connected."""
        self._loop.call_soon_threadsafe(self._server.close)
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind_reader, behind_writer = await asyncio.open_unix_connection(self._behind)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass(reader, behind_writer), _pass(behind_reader, writer))

    async def _cut(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass everything on, and the end of it."""
    with suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
    writer.close()
