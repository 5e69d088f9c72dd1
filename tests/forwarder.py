"""A port that passes connections on to another one, so that a test can cut a server off that must not be ended.

python forwarder.py HOST PORT TARGET_PORT
"""

import asyncio
import sys
from contextlib import suppress

CHUNK = 1 << 16


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while content := await reader.read(CHUNK):
            writer.write(content)
            await writer.drain()
    writer.close()


async def forward(host: str, port: int, target: int) -> None:
    """Accept connections on `host:port`, and connect each with the port `target` of loopback."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    server = await asyncio.start_server(accept, host, port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(forward(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
