"""The page's server: the files of the page, and a WebSocket that takes pictures and tells what they show.

It keeps no picture, and is made for few people: what comes too often waits, what is too large or too much is refused.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.staticfiles import StaticFiles

from agepipe.config.runtime import Runtime
from agepipe.serving import camera, camera_session
from agepipe.serving.camera import Model
from agepipe.serving.camera_session import Asked
from agepipe.serving.detect.detector import load_detector
from agepipe.serving.model_source import Served
from agepipe.serving.web.host_check import Guard
from agepipe.serving.web.session import LARGEST, Live, Record, Shared

PAGE = Path(__file__).with_name("page")
MOST = 16
"""Connections at a time."""
UNREAD = 4 * LARGEST
"""Bytes of a message from which on the rest is not even read: its connection ends."""
RATE = 30.0
"""Pictures a second of one connection; those that come faster wait, and with them whoever sends them."""
IDLE = 60.0
"""Seconds after which a connection that sends nothing is ended."""
FULL, AWAY = 1013, 1001
"""Close codes of WebSockets: try again later, and going away (RFC 6455, section 7.4, and IANA's registry)."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "Permissions-Policy": "camera=(self), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The page loads nothing from elsewhere, and lies in no other page."""


def prepared(asked: Asked, runtime: Runtime) -> Shared:
    """Model and detector for a server; without a model that is deployed or served elsewhere, it begins without one.

    Raises:
        ConfigError: an endpoint beside a model, or one that is no address.
        ModelError: the model that was named, or the detector, cannot be used.
    """
    camera_session.check_endpoint(asked)
    camera.one_thread()
    detector, told = load_detector(runtime)
    named = camera_session.chosen(asked, runtime) if asked.model else None
    shared = Shared(lambda: named or _chosen(asked, runtime), detector, told)
    shared.load()
    return shared


def _chosen(asked: Asked, runtime: Runtime) -> Model:
    # all pages wait for one thread, so a server that is gone is told at once and asked for again beside them
    return Served(asked.endpoint, patience=0.0) if asked.endpoint else camera_session.chosen(asked, runtime)


def app(shared: Shared) -> FastAPI:
    """The routes; all work on pictures is done by one thread."""
    worker = ThreadPoolExecutor(1, "faces")

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        worker.shutdown(wait=False, cancel_futures=True)

    # no generated pages: they would load scripts from elsewhere
    made = FastAPI(lifespan=life, openapi_url=None, docs_url=None, redoc_url=None)
    inside: set[WebSocket] = set()

    @made.middleware("http")
    async def headed(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request)
        response.headers.update(HEADERS)
        return response

    @made.get("/status")
    async def status() -> Record:
        return await asyncio.get_running_loop().run_in_executor(worker, shared.status)

    @made.websocket("/faces")
    async def faces(socket: WebSocket, apart: bool = False) -> None:
        await socket.accept()
        if len(inside) >= MOST:
            return await _end(socket, FULL, f"{MOST} pages are open already; close one, or try again later.")
        inside.add(socket)
        try:
            await _talk(socket, Live(shared, apart=apart), worker)
        except WebSocketDisconnect:
            return None
        finally:
            inside.discard(socket)

    made.mount("/", StaticFiles(directory=PAGE, html=True))
    return made


async def _talk(socket: WebSocket, live: Live, worker: ThreadPoolExecutor) -> None:
    """Answer each message of a connection by one, until it ends."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            message = await asyncio.wait_for(socket.receive(), IDLE)
        except TimeoutError:
            return await _end(socket, AWAY, f"Nothing was sent for {IDLE:.0f} seconds.")
        if message["type"] == "websocket.disconnect":
            return None
        due = loop.time() + 1 / RATE
        await socket.send_json(await loop.run_in_executor(worker, live.look, message.get("bytes")))
        await asyncio.sleep(due - loop.time())


async def _end(socket: WebSocket, code: int, why: str) -> None:
    """End a connection with a reason, at most 123 bytes, which the page shows."""
    with suppress(WebSocketDisconnect):
        await socket.send_json({"error": why})
        await socket.close(code, why)


def address(listener: socket.socket) -> str:
    """Where a browser of this machine finds the page."""
    host, port = listener.getsockname()[:2]
    shown = "localhost" if ip_address(host).is_unspecified else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def warning(listener: socket.socket) -> str:
    """What a user should know who lets others in; empty where nobody else can come."""
    if ip_address(listener.getsockname()[0]).is_loopback:
        return ""
    return (
        "Everybody in this network can open the page, without a password; on their machines a browser lends its camera "
        "only over https, but takes pictures."
    )


def server(shared: Shared, host: str) -> uvicorn.Server:
    """A server that can be run on a bound socket."""
    return uvicorn.Server(
        uvicorn.Config(
            Guard(app(shared), host, strict=True), ws_max_size=UNREAD, ws_per_message_deflate=False, log_config=None,
            access_log=False, server_header=False, limit_concurrency=256, timeout_graceful_shutdown=3,
        )
    )  # fmt: skip


def serve(shared: Shared, host: str, listener: socket.socket) -> None:
    """Serve until Ctrl-C.

    Raises:
        KeyboardInterrupt: that, once the server has ended.
    """
    server(shared, host).run(sockets=[listener])
