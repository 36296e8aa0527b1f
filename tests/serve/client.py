"""A small asynchronous HTTP client for checks and measurements of the server: Python's standard library only."""

import asyncio
import json


class Closed(Exception):
    """The server closed the connection before the response was whole."""


class Connection:
    """One keep-alive connection; requests follow each other."""

    def __init__(self, host, port, key=None):
        self.host, self.port, self.key = host, port, key
        self.reader = self.writer = None

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)

    def close(self):
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None

    def abort(self):
        """Leaves without a word."""
        if self.writer:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def send(self, method, path, body=None, headers=()):
        """Sends a request; body: bytes, or what JSON can say. Returns (status, headers) of the response."""
        if self.writer is None:
            await self.open()
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}", f"Content-Length: {len(data)}"]
        if body is not None:
            lines.append("Content-Type: application/json")
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        lines += [f"{name}: {value}" for name, value in headers]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        await self.writer.drain()
        return await self._head()

    async def _line(self):
        line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise Closed("connection closed")
        return line.rstrip(b"\r\n").decode("latin-1")

    async def _head(self):
        status = int((await self._line()).split(" ", 2)[1])
        headers = {}
        while line := await self._line():
            name, value = line.split(":", 1)
            headers[name.strip().lower()] = value.strip()
        self.head = headers
        return status, headers

    async def parts(self):
        """The body as it comes."""
        try:
            if self.head.get("transfer-encoding", "").lower() == "chunked":
                while size := int(await self._line(), 16):
                    yield await self.reader.readexactly(size)
                    await self._line()
                await self._line()
            elif size := int(self.head.get("content-length", 0)):
                yield await self.reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise Closed("connection closed within the body") from error
        if self.head.get("connection", "").lower() == "close":
            self.close()

    async def body(self):
        return b"".join([part async for part in self.parts()])

    async def events(self):
        """Server-sent events: (event name or None, data as text)."""
        rest = b""
        async for part in self.parts():
            rest += part
            while (end := rest.find(b"\n\n")) >= 0:
                block, rest = rest[:end].decode(), rest[end + 2 :]
                name, data = None, []
                for line in block.split("\n"):
                    if line.startswith("event:"):
                        name = line[6:].strip()
                    elif line.startswith("data:"):
                        data.append(line[5:].strip())
                if data:
                    yield name, "\n".join(data)

    async def call(self, method, path, body=None, headers=()):
        """(status, body as JSON or bytes)."""
        status, head = await self.send(method, path, body, headers)
        data = await self.body()
        return status, json.loads(data) if head.get("content-type", "").startswith("application/json") else data
