"""The two sides of the comparison, what stands around them, and one measurement of each; see measure.py."""

import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

MEASURED, OTHERS = "0", "1"  # cores
PARTITIONS = 4
OUTAGE_RATE = 500
DELAY = "100ms"
# Bounds of what is waited for; nothing is timed by them.
START_S, DRAIN_S, END_S = 60, 120, 60
# How long the agent has after its sink is back.
BACK_S = 15


def contract():
    features = "".join(f"  {name}: {{type: double}}\n" for name in NAMES)
    return (
        "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: bench\nversion: 1\n"
        f"entity:\n  customer: {{type: string}}\nfeatures:\n{features}"
        "prediction:\n  score: {type: double, required: true}\n"
        "labels:\n  good: {type: boolean, window: 1h, lateness: 1h, aggregate: any, default: false}\n"
    )


NAMES = [f"feature_{place:02}" for place in range(100)]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until(what, is_so, seconds):
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {seconds} s")
        time.sleep(0.05)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def get(port, path):
    return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20).read().decode()


class Process:
    """A process on one core, with its CPU and its memory."""

    def __init__(self, core, command, log, env=None):
        self._log = open(log, "ab")
        self.process = subprocess.Popen(
            ["taskset", "-c", core, *map(str, command)],
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
        self.pid = self.process.pid
        self.rss_mb, self._watching = [], False

    def cpu_s(self):
        # The CPU clock of another process, as clock_getcpuclockid(3) names it on Linux.
        return time.clock_gettime((~self.pid << 3) | 2)

    def watch(self):
        """Notes its memory twice a second from now on."""
        self._watching = True

        def note():
            while self._watching and (now := self.rss()) is not None:
                self.rss_mb.append(now)
                time.sleep(0.5)

        threading.Thread(target=note, daemon=True).start()

    def rss(self):
        try:
            with open(f"/proc/{self.pid}/status") as status:
                lines = [line for line in status if line.startswith("VmRSS")]
            return int(lines[0].split()[1]) / 1024 if lines else None
        except OSError:
            return None

    def end(self, number=signal.SIGKILL):
        """Signals it and waits; whether it ended by itself, for a signal that asks."""
        self._watching = False
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(END_S)
            return True
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        finally:
            self._log.close()


class Run:
    def __init__(self, options):
        self.options, self.dir = options, Path(options.dir)
        self.model_port, self.agent_port, self.sink_port, self.api_port, self.admin_port = free_ports(5)
        self.running = []
        source = random.Random(1)
        features = {name: round(source.uniform(0, 1000), 13) for name in NAMES}
        self.agent_body, self.our_body = self.dir / "agent.json", self.dir / "ours.json"
        self.agent_body.write_text(json.dumps({"instances": [features]}))
        row = {"model_version": "1", "entity": {"customer": "c-1"}, "features": features, "prediction": {"score": 0.9134}}
        self.our_body.write_text(json.dumps(row))
        (self.dir / "contracts").mkdir()
        (self.dir / "contracts" / "bench.yaml").write_text(contract())

    # ---- what is around

    def start(self, core, name, command, port, env=None):
        process = Process(core, command, self.dir / f"{name}.log", env)
        self.running.append(process)

        def is_up():
            if process.process.poll() is not None:
                raise SystemExit(f"{name} ended:\n{(self.dir / f'{name}.log').read_text()[-2000:]}")
            return listens(port)

        until(name, is_up, START_S)
        return process

    def around(self, name, port, *arguments):
        return self.start(OTHERS, name, [self.options.around, name, f"127.0.0.1:{port}", *arguments], port)

    def end_all(self):
        for process in self.running:
            process.end()
        self.running.clear()

    def load(self, url, body, rate, seconds):
        command = [self.options.around, "load", url, body, rate, seconds]
        return self.output(command)

    def output(self, command):
        said = subprocess.run(["taskset", "-c", OTHERS, *map(str, command)], stdout=subprocess.PIPE, check=True, text=True)
        return json.loads(said.stdout)

    # ---- the agent

    def agent(self, logs):
        command = [self.options.agent, "--port", self.agent_port, "--component-port", self.model_port]
        if logs:
            command += ["--log-url", f"http://127.0.0.1:{self.sink_port}/", "--log-mode", "all", "--workers", "5"]
            command += ["--inference-service", "bench", "--namespace", "default", "--component", "predictor"]
            command += ["--endpoint", "default", "--source-uri", f"http://127.0.0.1:{self.agent_port}/"]
        probe = json.dumps({"tcpSocket": {"port": self.model_port, "host": "127.0.0.1"}})
        # It has one core; told so, the Go runtime does with fewer threads.
        env = {"SERVING_READINESS_PROBE": probe, "GOMAXPROCS": "1"}
        return self.start(MEASURED, "agent", command, self.agent_port, env)

    def agent_load(self, rate, seconds):
        url = f"http://127.0.0.1:{self.agent_port}/v1/models/bench:predict"
        return self.load(url, self.agent_body, rate, seconds)

    def events(self):
        return sum(json.loads(get(self.sink_port, "/stats")).values())

    def agent_cpu(self, logs, rate, seconds):
        """Microseconds a request."""
        self.around("model", self.model_port)
        if logs:
            self.around("sink", self.sink_port, "0s")
        agent = self.agent(logs)
        self.agent_load(rate or 1_000, 1)
        if logs:
            self.rest()
        before_s, before = agent.cpu_s(), self.events() if logs else 0
        load = self.agent_load(rate, seconds)
        assert load["bad"] == 0, load
        if logs:
            until("the events", lambda: self.events() - before >= 2 * load["ok"], DRAIN_S)
        us = (agent.cpu_s() - before_s) / load["ok"] * 1e6
        self.end_all()
        return {"us": us, "rate": load["ok"] / load["seconds"], "p99_ms": load["p99_ms"]}

    def rest(self):
        """Until the sink's count stands still."""
        last = -1
        while (now := self.events()) != last:
            last = now
            time.sleep(0.5)

    def agent_outage(self, case, seconds):
        self.around("model", self.model_port)
        if case == "slow":
            self.around("sink", self.sink_port, DELAY)
        agent = self.agent(True)
        start_mb, before_s = agent.rss(), agent.cpu_s()
        agent.watch()
        load = self.agent_load(OUTAGE_RATE, seconds)
        cpu_us, end_mb = (agent.cpu_s() - before_s) / load["ok"] * 1e6, agent.rss()
        if case == "gone":
            self.around("sink", self.sink_port, "0s")
            time.sleep(BACK_S)
        agent.end(signal.SIGTERM)
        lost = 2 * load["ok"] - self.events()
        result = {"start_mb": start_mb, "end_mb": end_mb, "max_mb": max(agent.rss_mb), "cpu_us": cpu_us}
        self.end_all()
        # Two events are a prediction.
        return {**result, "lost": lost / 2, "logged": load["ok"], "p99_ms": load["p99_ms"]}

    # ---- the sidecar

    def start_kafka(self):
        kafka, (port, _, self.kafka_port, _) = self.dir / "kafka", free_ports(4)
        # The controller and the proxy's control take the port above.
        kafka.mkdir()
        (kafka / "extra.properties").write_text(f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.kafka_port}\n")
        self._kafka = (kafka, port)
        self.hold_kafka()
        command = [self.options.around, "proxy", f"127.0.0.1:{self.kafka_port}", f"127.0.0.1:{port}"]
        self._proxy = Process(OTHERS, command, self.dir / "proxy.log")
        until("the proxy", lambda: listens(self.kafka_port) and listens(self.kafka_port + 1), START_S)
        self._topics = 0

    def hold_kafka(self):
        """The broker lives no longer than this process."""
        kafka, port = self._kafka
        command = ["taskset", "-c", OTHERS, f"{self.options.servers}/kafka.sh", "hold", kafka, port]
        self._holder = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if not self._holder.stdout.readline():
            raise SystemExit("Kafka does not start")

    def release_kafka(self):
        self._holder.stdin.close()
        self._holder.wait()

    def kill_kafka(self):
        os.kill(int((self._kafka[0] / "pid").read_text()), signal.SIGKILL)
        self.release_kafka()

    def delay(self, by):
        get(self.kafka_port + 1, f"/delay?by={by}")

    def sidecar(self, is_new=True):
        """A new one has an empty spool and topics of its own."""
        folder = self.dir / "ours"
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            self._topics += 1
            self.prefix = f"run{self._topics}"
            self.socket = folder / "sock"
            registry = f"file:{folder}/registry"
            command = [f"{self.options.bin}/flywheel-schemas", "register", self.dir / "contracts" / "bench.yaml"]
            command += ["--registry", registry, "--kafka", f"127.0.0.1:{self.kafka_port}", "--prefix", self.prefix]
            command += ["--partitions", str(PARTITIONS)]
            subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
            (folder / "sidecar.toml").write_text(
                f'[listen]\ntcp = "127.0.0.1:{self.api_port}"\nuds = "{self.socket}"\n'
                f'admin = "127.0.0.1:{self.admin_port}"\n[contracts]\ndir = "{self.dir}/contracts"\n'
                f'[spool]\ndir = "{folder}/spool"\n[log]\nurl = "kafka://127.0.0.1:{self.kafka_port}"\n'
                f'prefix = "{self.prefix}"\n[registry]\nurl = "{registry}"\n'
            )
        self.socket.unlink(missing_ok=True)
        command = [f"{self.options.bin}/flywheel-sidecar", "--config", folder / "sidecar.toml"]
        sidecar = self.start(MEASURED, "sidecar", command, self.admin_port)
        until("the sidecar's socket", self.socket.exists, START_S)
        return sidecar

    def our_load(self, feed, rate, seconds):
        if feed == "client":
            command = [f"{self.options.servers}/python-client.sh", "run", Path(__file__).with_name("log.py").resolve()]
            return self.output([*command, f"unix:{self.socket}", self.our_body, rate, seconds])
        return self.load(f"unix:{self.socket}:/v1/models/bench/predictions", self.our_body, rate, seconds)

    def in_topic(self):
        """Records that the broker has, by its own offsets: ListOffsets of the Kafka protocol, version 1."""
        topic = f"{self.prefix}.bench.predictions".encode()
        text = lambda value: struct.pack(">h", len(value)) + value  # noqa: E731
        partitions = b"".join(struct.pack(">iq", number, -1) for number in range(PARTITIONS))
        body = struct.pack(">hhi", 2, 1, 1) + text(b"peers") + struct.pack(">ii", -1, 1) + text(topic)
        body += struct.pack(">i", PARTITIONS) + partitions
        with socket.create_connection(("127.0.0.1", self._kafka[1]), 20) as broker:
            broker.sendall(struct.pack(">i", len(body)) + body)
            stream = broker.makefile("rb")
            answer = stream.read(struct.unpack(">i", stream.read(4))[0])
        # Behind the correlation, the counts and the name: partition, error, time, offset.
        rows = struct.iter_unpack(">ihqq", answer[4 + 4 + 2 + len(topic) + 4 :])
        total = 0
        for _, error, _, offset in rows:
            if error:
                raise SystemExit(f"Kafka answers with error {error} for its offsets")
            total += offset
        return total

    def our_cpu(self, feed, rate, seconds):
        sidecar = self.sidecar()
        warm = self.our_load(feed, rate or 1_000, 1)["ok"]
        until("the topic", lambda: self.in_topic() == warm, DRAIN_S)
        before_s = sidecar.cpu_s()
        load = self.our_load(feed, rate, seconds)
        assert load["bad"] == 0, load
        until("the topic", lambda: self.in_topic() == warm + load["ok"], DRAIN_S)
        us = (sidecar.cpu_s() - before_s) / load["ok"] * 1e6
        self.end_all()
        return {"us": us, "rate": load["ok"] / load["seconds"], **{key: load[key] for key in load if key.endswith("_us") or key == "p99_ms"}}

    def our_outage(self, case, seconds):
        sidecar = self.sidecar()
        if case == "slow":
            self.delay(DELAY)
        else:
            self.kill_kafka()
        start_mb, before_s = sidecar.rss(), sidecar.cpu_s()
        sidecar.watch()
        load = self.our_load("single", OUTAGE_RATE, seconds)
        cpu_us, end_mb = (sidecar.cpu_s() - before_s) / load["ok"] * 1e6, sidecar.rss()
        if case == "slow":
            self.delay("0s")
        else:
            self.hold_kafka()
            time.sleep(BACK_S)
        max_mb = max(sidecar.rss_mb)
        sidecar.end(signal.SIGTERM)
        self.sidecar(is_new=False)
        end = time.monotonic() + DRAIN_S
        while self.in_topic() < load["ok"] and time.monotonic() < end:
            time.sleep(0.2)
        lost = load["ok"] - self.in_topic()
        self.end_all()
        return {
            "start_mb": start_mb, "end_mb": end_mb, "max_mb": max_mb, "cpu_us": cpu_us,
            "lost": lost, "logged": load["ok"], "p99_ms": load["p99_ms"],
        }  # fmt: skip
