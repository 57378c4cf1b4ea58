"""HTTP/1.1 to the sidecar, pipelined: requests are written without waiting for the answers, which come in order."""

import select
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

# A local connection is made at once or not at all.
_CONNECT_WITHIN_S = 2.0

# The sidecar's heads have some 200 bytes. Its answers are at most some MB: a batch whose every row has many faults.
_HEAD_BYTES_MAX = 64 << 10
_BODY_BYTES_MAX = 64 << 20
_READ_BYTES = 256 << 10


class Address(NamedTuple):
    """Where the sidecar listens."""

    family: socket.AddressFamily
    name: "str | tuple[str, int]"

    @classmethod
    def parse(cls, url: str) -> "Address":
        """`unix:PATH` or `http://HOST:PORT`; ValueError for anything else."""
        if url.startswith("unix:"):
            path = url.removeprefix("unix:").removeprefix("//")
            if path:
                return cls(socket.AF_UNIX, path)
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname and parts.path in ("", "/"):
            family = socket.AF_INET6 if ":" in parts.hostname else socket.AF_INET
            return cls(family, (parts.hostname, parts.port or 80))
        raise ValueError(f"{url!r} is no address of a sidecar; give unix:PATH or http://HOST:PORT")

    def connect(self) -> socket.socket:
        """A blocking socket. OSError where nobody listens."""
        stream = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            stream.settimeout(_CONNECT_WITHIN_S)
            stream.connect(self.name)
            if self.family != socket.AF_UNIX:
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            stream.close()
            raise
        return stream


class Answer(NamedTuple):
    status: int
    retry_after_s: "float | None"
    closes: bool
    """The sidecar ends the connection behind this answer."""
    body: bytes


class Connection:
    """One connection; it is thrown away after the first error. Not for use by two threads."""

    def __init__(self, address: Address) -> None:
        """OSError where nobody listens."""
        self._stream = address.connect()
        self._stream.setblocking(False)
        self._out = memoryview(b"")
        self._in = bytearray()
        self._poll = select.poll()
        self._poll.register(self._stream, select.POLLIN)

    def close(self) -> None:
        self._stream.close()

    def is_alive(self) -> bool:
        """Whether it may be used again after a rest: nothing has come, not even the end."""
        return not self._poll.poll(0)

    def send(self, data: bytes) -> None:
        """Hands over bytes; those that the socket does not take now go out in `receive`. OSError where it is broken."""
        self._out = memoryview(bytes(self._out) + data) if self._out else memoryview(data)
        self._flush()

    def receive(self, timeout_s: float) -> "list[Answer]":
        """The answers that have come within the time, perhaps none. OSError where the connection has ended."""
        self._poll.modify(self._stream, select.POLLIN | (select.POLLOUT if self._out else 0))
        events = self._poll.poll(max(0.0, timeout_s) * 1000)
        if not events:
            return []
        if self._out:
            self._flush()
        if not events[0][1] & ~select.POLLOUT:
            return []
        try:
            data = self._stream.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionResetError("the sidecar closed the connection")
        self._in += data
        answers = []
        while (answer := self._parse()) is not None:
            answers.append(answer)
        return answers

    def _flush(self) -> None:
        try:
            while self._out:
                self._out = self._out[self._stream.send(self._out) :]
        except BlockingIOError:
            pass

    def _parse(self) -> "Answer | None":
        """Takes one whole answer from what was read."""
        end = self._in.find(b"\r\n\r\n")
        if end < 0:
            if len(self._in) > _HEAD_BYTES_MAX:
                raise ConnectionAbortedError("the head of an answer has no end; is this a sidecar?")
            return None
        lines = bytes(self._in[:end]).decode("latin-1").split("\r\n")
        length, retry_after_s, closes = None, None, False
        try:
            version, status = lines[0].split(" ", 2)[:2]
            for line in lines[1:]:
                name, _, value = line.partition(":")
                name, value = name.lower(), value.strip()
                if name == "content-length":
                    length = int(value)
                elif name == "retry-after" and value.isdecimal():
                    retry_after_s = float(value)
                elif name == "connection":
                    closes = value.lower() == "close"
            if not version.startswith("HTTP/1.1") or length is None or not 0 <= length <= _BODY_BYTES_MAX:
                raise ValueError
            start = end + 4
            if len(self._in) < start + length:
                return None
            answer = Answer(int(status), retry_after_s, closes, bytes(self._in[start : start + length]))
        except ValueError:
            raise ConnectionAbortedError("an answer that is not that of a sidecar") from None
        del self._in[: start + length]
        return answer
