"""The server of the web page: its files, and a WebSocket that receives pictures and sends the predictions.

It stores no picture. It is meant for a few users: the rate of pictures, their size and the connections are limited.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from agepipe.config.runtime import Runtime
from agepipe.serving import camera, camera_session
from agepipe.serving.camera import ModelSource
from agepipe.serving.camera_session import CameraOptions
from agepipe.serving.detect.detector import load_detector
from agepipe.serving.endpoint import Endpoint
from agepipe.serving.web.host_check import Guard
from agepipe.serving.web.session import MAX_PICTURE, Connection, Record, SharedModel
from agepipe.serving.web.token_check import TokenCheck

PAGE = Path(__file__).with_name("page")
MAX_CONNECTIONS = 16
"""Largest number of simultaneous connections."""
MAX_MESSAGE = 4 * MAX_PICTURE
"""Largest message, bytes; a larger one closes the connection without being read completely."""
RATE = 30.0
"""Largest rate of a connection, pictures/s; the next picture is read only when it is due."""
IDLE = 60.0
"""Time without a message after which a connection is closed, s."""
TRY_AGAIN_LATER, GOING_AWAY = 1013, 1001
"""WebSocket close codes (RFC 6455, section 7.4, and IANA's registry)."""
HEALTH = "/health"
"""Path that answers 200 if there is a model and else 503, for probes; it needs no token."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "Permissions-Policy": "camera=(self), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of all responses: the page loads nothing from other hosts and cannot be embedded."""


def prepare(options: CameraOptions, runtime: Runtime) -> SharedModel:
    """Load model and detector; if the deployed model or the endpoint is not available yet, loading is tried again.

    Raises:
        ConfigError: both an endpoint and a model are given, or the endpoint is not an HTTP URL.
        ModelError: the named model, or the detector, cannot be used.
    """
    camera_session.check_endpoint(options)
    camera.one_thread()
    detector, notes = load_detector(runtime)
    named = camera_session.load_model(options, runtime) if options.model else None
    shared = SharedModel(lambda: named or _load_model(options, runtime), detector, notes)
    shared.load()
    return shared


def _load_model(options: CameraOptions, runtime: Runtime) -> ModelSource:
    # no patience, because the thread that would wait for a failed server is that of all connections
    if options.endpoint:
        return Endpoint(options.endpoint, patience=0.0)
    return camera_session.load_model(options, runtime)


def app(shared: SharedModel) -> FastAPI:
    """Create the app; pictures of all connections are processed by one thread."""
    worker = ThreadPoolExecutor(1, "faces")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        worker.shutdown(wait=False, cancel_futures=True)

    # without the generated pages, which load scripts from other hosts
    made = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    connections: set[WebSocket] = set()

    @made.middleware("http")
    async def add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    @made.get("/status")
    async def status() -> Record:
        return await asyncio.get_running_loop().run_in_executor(worker, shared.status)

    @made.get(HEALTH)
    async def health() -> Response:
        found = await status()
        return JSONResponse(found, HTTPStatus.OK if found["model"] else HTTPStatus.SERVICE_UNAVAILABLE)

    @made.websocket("/faces")
    async def faces(socket: WebSocket, apart: bool = False) -> None:
        await socket.accept()
        if len(connections) >= MAX_CONNECTIONS:
            return await _close(
                socket, TRY_AGAIN_LATER, f"{MAX_CONNECTIONS} pages are open already; close one, or try again later."
            )
        connections.add(socket)
        try:
            await _converse(socket, Connection(shared, independent=apart), worker)
        except WebSocketDisconnect:
            return None
        finally:
            connections.discard(socket)

    made.mount("/", StaticFiles(directory=PAGE, html=True))
    return made


async def _converse(socket: WebSocket, connection: Connection, worker: ThreadPoolExecutor) -> None:
    """Send one message for each received one, until the connection is closed."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            message = await asyncio.wait_for(socket.receive(), IDLE)
        except TimeoutError:
            return await _close(socket, GOING_AWAY, f"Nothing was sent for {IDLE:.0f} seconds.")
        if message["type"] == "websocket.disconnect":
            return None
        due = loop.time() + 1 / RATE
        await socket.send_json(await loop.run_in_executor(worker, connection.answer, message.get("bytes")))
        await asyncio.sleep(due - loop.time())


async def _close(socket: WebSocket, code: int, why: str) -> None:
    """Close a connection with a reason of at most 123 bytes, which the page shows."""
    with suppress(WebSocketDisconnect):
        await socket.send_json({"error": why})
        await socket.close(code, why)


def address(listener: socket.socket) -> str:
    """URL of the page for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    shown = "localhost" if ip_address(host).is_unspecified else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def warning(listener: socket.socket, token: str) -> str:
    """A note if other machines can open the page; else empty."""
    if ip_address(listener.getsockname()[0]).is_loopback:
        return ""
    if token:
        return "Token and pictures are not encrypted; put a proxy before the page that serves https."
    return (
        "Everybody in this network can open the page, without a password; on other machines the browser allows "
        "pictures, but the camera only over https."
    )


def server(shared: SharedModel, host: str, token: str = "") -> uvicorn.Server:
    """Create the server; run it with a bound socket."""
    checked = TokenCheck(app(shared), token, HEALTH) if token else app(shared)
    return uvicorn.Server(
        uvicorn.Config(
            Guard(checked, host, strict=True, any_name=bool(token)), ws_max_size=MAX_MESSAGE,
            ws_per_message_deflate=False, log_config=None, access_log=False, server_header=False, limit_concurrency=256,
            timeout_graceful_shutdown=3,
        )
    )  # fmt: skip


def serve(shared: SharedModel, host: str, listener: socket.socket, token: str = "") -> None:
    """Serve until Ctrl-C.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the server was shut down.
    """
    server(shared, host, token).run(sockets=[listener])
