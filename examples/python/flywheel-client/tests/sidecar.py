"""The real sidecar, as a process with a `file:` log, and what it has written there."""

import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

# Nothing takes as long on a busy machine; nothing is timed by it.
BOUND_S = 120
_HERE = Path(__file__).parent
_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def until(what, is_so):
    """Asks again and again until it is so."""
    end = time.monotonic() + BOUND_S
    while not is_so():
        assert time.monotonic() < end, f"{what}: never came"
        time.sleep(0.02)


class Sidecar:
    def __init__(self):
        # Not pytest's folder, whose path is too long for a socket.
        self._folder = tempfile.TemporaryDirectory(prefix="fw-client-")
        self.dir = Path(self._folder.name)
        self.socket = self.dir / "sock"
        self.url = f"unix:{self.socket}"
        self.http_url = None
        self._process = None
        (self.dir / "contracts").mkdir()
        (self.dir / "contracts" / "rows.yaml").write_text((_HERE / "contract.yaml").read_text())
        self.configure()

    def configure(self, log=None, **sections):
        """Settings by section, over those of every test."""
        settings = {
            "listen": {"tcp": "127.0.0.1:0", "uds": str(self.socket), "admin": "127.0.0.1:0"},
            "contracts": {"dir": str(self.dir / "contracts")},
            "spool": {"dir": str(self.dir / "spool")},
            "log": {"url": log or f"file:{self.dir / 'log'}", "partitions": 1},
            "registry": {"url": f"file:{self.dir / 'registry'}", "auto_register": True},
            "shutdown": {"drain_ms": 1000},
        }
        for section, values in sections.items():
            settings.setdefault(section, {}).update(values)

        def toml(value):
            return str(value).lower() if isinstance(value, (bool, int)) else f'"{value}"'

        lines = []
        for section, values in settings.items():
            lines += [f"[{section}]", *(f"{key} = {toml(value)}" for key, value in values.items())]
        (self.dir / "sidecar.toml").write_text("\n".join(lines) + "\n")

    def start(self):
        command = shlex.split(os.environ["FLYWHEEL_SIDECAR"])
        log = self.dir / "stderr"
        self.socket.unlink(missing_ok=True)
        with open(log, "wb") as stderr:
            self._process = subprocess.Popen(
                [*command, "--config", str(self.dir / "sidecar.toml")],
                stdin=subprocess.PIPE,  # one that runs as a part of the demonstration ends when this closes
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, "RUST_LOG": "info", "FLYWHEEL_SIDECAR_TELEMETRY_FORMAT": "text"},
            )

        def listens():
            assert self._process.poll() is None, f"the sidecar ended:\n{log.read_text()}"
            said = re.search(r"api=(\S+) admin=(\S+)", log.read_text())
            if said:
                self.http_url, self._admin = f"http://{said[1]}", f"http://{said[2]}"
            return said and self.socket.exists() and self._is_ready()

        until("the sidecar", listens)
        return self

    def _is_ready(self):
        try:
            return urllib.request.urlopen(f"{self._admin}/readyz", timeout=BOUND_S).status == 200
        except OSError:
            return False

    def signal(self, number):
        self._process.send_signal(number)

    def kill(self):
        self._process.kill()
        self._process.communicate()

    def stop(self):
        self._process.terminate()
        self._process.communicate(timeout=BOUND_S)

    def remove(self):
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()
        self._folder.cleanup()

    def metric(self, name, **labels):
        """The sum over the samples of `name` that have these labels."""
        text = urllib.request.urlopen(f"{self._admin}/metrics", timeout=BOUND_S).read().decode()
        total = 0
        for line in text.splitlines():
            sample, _, value = line.rpartition(" ")
            found, _, rest = sample.partition("{")
            if found == name and all(f'{key}="{label}"' in rest for key, label in labels.items()):
                total += float(value)
        return total

    def written(self, kind="predictions", model="rows"):
        """The bytes of a topic."""
        topic = self.dir / "log" / "topics" / f"flywheel.{model}.{kind}"
        return b"".join(path.read_bytes() for path in sorted(topic.glob("*/*.log")))

    def copies(self, kind="predictions", model="rows"):
        """How many records of the topic have an id, by id. A record has its id as key, in a header and in its datum, and fewer
        of them while it is being written: then it is looked at again."""
        end_s = time.monotonic() + BOUND_S
        while True:
            counts = {}
            for id in _ID.findall(self.written(kind, model)):
                counts[id.decode()] = counts.get(id.decode(), 0) + 1
            if all(count % 3 == 0 for count in counts.values()):
                return {id: count // 3 for id, count in counts.items()}
            assert time.monotonic() < end_s, "a record no longer has its id three times"
            time.sleep(0.05)

    def await_ids(self, ids, model="rows"):
        """Waits until the topic has every one of these predictions, and sees that it has no others."""
        wanted = set(ids)
        assert len(wanted) == len(ids), "an id was given twice"
        until("the records", lambda: len(self.copies(model=model)) >= len(wanted))
        found = self.copies(model=model)
        assert set(found) == wanted
        return found
