"""Somewhere for a sandbox's webhooks to arrive."""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class Delivered:
    path: str
    headers: dict[str, str]
    body: bytes


class Mailbox:
    """An HTTP server that takes every POST and answers 200 with `reply`."""

    def __init__(self, reply: bytes = b"") -> None:
        self._reply = reply
        self.delivered: asyncio.Queue[Delivered] = asyncio.Queue()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers["content-length"]))
        length = f"Content-Length: {len(self._reply)}\r\n".encode()
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"Connection: close\r\n\r\n" + self._reply)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await self.delivered.put(Delivered(head[0].split()[1], headers, body))
