"""A proxy between client and sidecar that is slow, or cuts connections."""

import os
import socket
import threading


class Proxy:
    """`answer_bytes`: a connection ends when so many bytes of answers have gone through it, for the first `cuts` ones.
    `piece`: what goes through does so in pieces of so many bytes."""

    def __init__(self, sidecar, *, answer_bytes=None, cuts=0, piece=65536):
        self._sidecar, self._answer_bytes, self._cuts, self._piece = sidecar, answer_bytes, cuts, piece
        self.connections = 0
        path = str(sidecar.dir / "proxy")
        self.url = f"unix:{path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            left = self._answer_bytes if self.connections <= self._cuts else None
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self._sidecar.socket))
            threading.Thread(target=self._pass, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, left), daemon=True).start()

    def _pass(self, source, sink, left):
        """One direction, to its end."""
        try:
            while data := source.recv(65536):
                if left is not None:
                    data = data[:left]
                    left -= len(data)
                for start in range(0, len(data), self._piece):
                    sink.sendall(data[start : start + self._piece])
                if left == 0:
                    break
        except OSError:
            pass
        for stream in (source, sink):
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self._listener.close()
        os.unlink(self.url.removeprefix("unix:"))
