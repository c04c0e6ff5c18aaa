"""An HTTP proxy that makes tunnels (CONNECT) to named places, and refuses all else.

with HttpProxy({"train.example.org:443": "127.0.0.1:7400"}, user="ada:secret") as proxy:
...                                  # https_proxy=proxy.url
proxy.stop()                         # every tunnel ends
proxy.start()                        # at the same port
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from urllib.parse import quote

PIECE_BYTES = 64 << 10
FIRST_S = 10.0
"""So long a caller may take for its request."""


class HttpProxy:
    """Runs in a thread of its own while it is started.

    Args:
        routes: Where a tunnel leads, by what a caller asks for; both `HOST:PORT`.
        user: `NAME:PASSWORD` that it wants; empty: nobody is asked.
        idle_s: A tunnel ends when nothing went through it for so long; None: never.
        host: Where it listens.
    """

    def __init__(
        self, routes: Mapping[str, str], *, user: str = "", idle_s: float | None = None, host: str = "127.0.0.1"
    ) -> None:
        self._routes, self._user, self._idle_s, self._host, self._port = dict(routes), user, idle_s, host, 0
        self._end: Callable[[], object] = lambda: None
        self._thread: threading.Thread | None = None
        self.asked: list[tuple[str, int]] = []
        """What was asked for, and the status of the answer."""
        self.cut = 0
        """How many tunnels ended because nothing went through them."""
        self.pieces = 0
        """How many pieces went through them, both ways."""

    @property
    def url(self) -> str:
        """What goes into `https_proxy`."""
        name, _, password = self._user.partition(":")
        return f"http://{f'{quote(name)}:{quote(password)}@' if self._user else ''}{self._host}:{self._port}"

    @property
    def tunnels(self) -> int:
        """How many were made."""
        return sum(status == 200 for _, status in list(self.asked))

    def __enter__(self) -> HttpProxy:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; at the port of before, if there was one."""
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="proxy", daemon=True)
        self._thread.start()
        ready.result()

    def stop(self) -> None:
        """Stop listening, and end every tunnel."""
        if self._thread is not None:
            self._end()
            self._thread.join()
            self._thread = None

    async def _serve(self, ready: concurrent.futures.Future[None]) -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await asyncio.start_server(self._accept, self._host, self._port, limit=PIECE_BYTES)
        except OSError as error:
            ready.set_exception(error)
            return
        self._port = server.sockets[0].getsockname()[1]
        self._end = lambda: loop.call_soon_threadsafe(over.set)
        ready.set_result(None)
        await over.wait()
        server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_writer = None
        try:
            async with asyncio.timeout(FIRST_S):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            wanted, status = self._judged(head)
            if status == 200:
                try:
                    host, _, port = self._routes[wanted].rpartition(":")
                    far_reader, far_writer = await asyncio.open_connection(host, int(port), limit=PIECE_BYTES)
                except OSError:
                    status = 502
            self.asked.append((wanted, status))
            more = "Proxy-Authenticate: Basic realm=proxy\r\n" if status == 407 else ""
            writer.write(f"HTTP/1.1 {status} {_WORDS[status]}\r\n{more}\r\n".encode())
            await writer.drain()
            if far_writer is not None:
                await self._tunnel((reader, far_writer), (far_reader, writer))
        except (asyncio.CancelledError, OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the proxy stops, or one of both ends is gone, or said too much
        finally:
            for each in filter(None, (writer, far_writer)):
                each.close()

    def _judged(self, head: str) -> tuple[str, int]:
        method, _, rest = head.partition(" ")
        wanted = rest.partition(" ")[0]
        proof = base64.b64encode(self._user.encode()).decode()
        headers = {line.replace(" ", "").lower() for line in head.split("\r\n")[1:]}
        if self._user and f"proxy-authorization:basic{proof}".lower() not in headers:
            return wanted, 407
        if method != "CONNECT":
            return wanted, 405
        return wanted, 200 if wanted in self._routes else 403

    async def _tunnel(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal last
            while piece := await reader.read(PIECE_BYTES):
                last, self.pieces = loop.time(), self.pieces + 1
                writer.write(piece)
                await writer.drain()

        async def watch(idle_s: float) -> None:
            while True:
                await asyncio.sleep(last + idle_s - loop.time())
                if loop.time() >= last + idle_s:
                    self.cut += 1
                    return

        tasks = [asyncio.ensure_future(pump(*way)) for way in ways]
        if self._idle_s is not None:
            tasks.append(asyncio.ensure_future(watch(self._idle_s)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


_WORDS = {
    200: "Connection established",
    403: "Forbidden",
    405: "Method Not Allowed",
    407: "Proxy Authentication Required",
    502: "Bad Gateway",
}
