"""The broker, what fills it, and one measurement of each side; see measure.py."""

import glob
import json
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import duckdb
from pyiceberg.table import StaticTable

PARTITIONS = 4
PREFIX, MODEL = "peers", "bench"
# Bounds of what is waited for; nothing is timed by them.
RUN_S, END_S = 1200, 60
PAUSE_S = 0.1


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as each:
        return each.getsockname()[1]


def delays(table, column):
    """From the instant in a column of each row to the commit of the snapshot that brought the row."""
    newest = max(glob.glob(f"{table}/metadata/*.metadata.json"))
    table = StaticTable.from_metadata(newest)
    committed_ms = {snapshot.snapshot_id: snapshot.timestamp_ms for snapshot in table.snapshots()}
    files = {}
    for manifest in table.current_snapshot().manifests(table.io):
        for entry in manifest.fetch_manifest_entry(table.io):
            files[entry.data_file.file_path.removeprefix("file://")] = committed_ms[entry.snapshot_id]
    each = " UNION ALL ".join(
        f"SELECT ({at_ms} - epoch_ms({column})) / 1000.0 AS delay FROM read_parquet('{path}')" for path, at_ms in files.items()
    )
    found = duckdb.sql(f"SELECT quantile_cont(delay, 0.5), quantile_cont(delay, 0.99), max(delay) FROM ({each})").fetchone()
    return dict(zip(("p50", "p99", "most"), found))


class Process:
    """A process with its CPU and its memory."""

    def __init__(self, command, log, cwd=None):
        self._log = open(log, "ab")
        self.name, self.log = Path(command[0]).name, log
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL, cwd=cwd
        )

    def cpu_s(self):
        # The CPU clock of another process, as clock_getcpuclockid(3) names it on Linux.
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def rss_mb(self):
        """The most that was resident."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

    def until(self, is_so):
        end = time.monotonic() + RUN_S
        while not is_so():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{self.name} did not come to its end:\n{Path(self.log).read_text()[-3000:]}")
            time.sleep(PAUSE_S)

    def until_idle(self):
        """Until it has done next to nothing for two seconds."""
        before = -1.0
        while (now := self.cpu_s()) - before > 0.1:
            before = now
            time.sleep(2)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


class Run:
    def __init__(self, options):
        self.options, self.dir = options, Path(options.dir)
        self.running = []

    def start_kafka(self):
        port = free_port()
        folder = self.dir / "kafka"
        folder.mkdir()
        # The broker ends when this process does.
        self._broker = subprocess.Popen(
            [f"{self.options.servers}/kafka.sh", "hold", str(folder), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.brokers = self._broker.stdout.readline().strip()
        if not self.brokers:
            raise SystemExit("no broker")

    def fill(self, what):
        command = [f"{self.options.bin}/fill", what, self.brokers, PREFIX, self.schemas(), PARTITIONS, self.options.predictions]
        said = json.loads(subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout)
        if what == "rows":
            self.bytes, self.outcomes, self.labelled = said["bytes"], said["outcomes"], said["labelled"]

    def start(self, command, log, cwd=None):
        process = Process(command, log, cwd)
        self.running.append(process)
        return process

    def finish(self, process):
        process.end()
        self.running.remove(process)

    def end(self):
        for process in list(self.running):
            self.finish(process)
        if hasattr(self, "_broker"):
            self._broker.stdin.close()
            self._broker.wait()

    def folder(self, name, turn):
        folder = self.dir / f"{name}-{turn}"
        folder.mkdir()
        return folder

    # ---- the joiner

    def joiner(self, name, turn, prefix=PREFIX, ingest_time="record", interval_ms=10_000):
        folder, port = self.folder(name, turn), free_port()
        (folder / "joiner.toml").write_text(
            f'[log]\nurl = "kafka://{self.brokers}"\nprefix = "{prefix}"\ngroup = "{name}-{turn}"\ningest_time = "{ingest_time}"\n'
            f'[registry]\nurl = "file:{self.schemas(prefix)}/registry"\n'
            f'[catalog]\nurl = "sqlite:{folder}/catalog.db"\nwarehouse = "{folder}/warehouse"\n'
            f'[index]\ndir = "{folder}/index"\n[listen]\nadmin = "127.0.0.1:{port}"\n'
            # Whatever was read is committed soon after the last record, and in between when so many bytes wait.
            f"[commit]\ninterval_ms = {interval_ms}\n"
        )
        process = self.start([f"{self.options.bin}/flywheel-joiner", "run", "--config", folder / "joiner.toml"], folder / "log")
        return folder, port, process

    def committed(self, port, table):
        try:
            text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20).read().decode()
        except OSError:
            return 0
        found = re.search(rf'^flywheel_joiner_committed_rows_total{{table="{MODEL}_{table}"}} (\d+)', text, re.M)
        return int(found[1]) if found else 0

    def schemas(self, prefix=PREFIX):
        return self.dir / f"schemas-{prefix}"

    def visible(self, seconds=240):
        prefix = "live"
        fill = [f"{self.options.bin}/fill", "live", self.brokers, prefix, self.schemas(prefix), PARTITIONS]
        # The topics and schemas first, so that the joiner finds them.
        subprocess.run(list(map(str, [*fill, 0])), check=True, stdout=subprocess.DEVNULL)
        folder, port, process = self.joiner("visible", 0, prefix, "broker", 5_000)
        said = subprocess.run(list(map(str, [*fill, seconds])), check=True, stdout=subprocess.PIPE, text=True)
        sent = json.loads(said.stdout)["predictions"]
        process.until(lambda: self.committed(port, "training") >= sent)
        self.finish(process)
        tables = f"{folder}/warehouse/flywheel/{MODEL}_"
        return {
            "an outcome in _training_live, after its append, at a commit interval of 5 s": delays(f"{tables}outcomes", "ingest_time"),
            "a row in _training, after its tick, at a grid of 30 s": delays(f"{tables}training", "as_of"),
        }

    def joiner_until(self, name, turn, expected):
        start = time.monotonic()
        folder, port, process = self.joiner(name, turn)
        process.until(lambda: all(self.committed(port, table) >= rows for table, rows in expected.items()))
        seconds = time.monotonic() - start
        # What follows, such as revisions and unmatched statements, is its work too.
        process.until_idle()
        cpu, rss = process.cpu_s(), process.rss_mb()
        self.finish(process)
        return folder, seconds, cpu, rss

    def joiner_lands(self, turn):
        rows = self.options.predictions + self.outcomes
        expected = {"predictions": self.options.predictions, "outcomes": self.outcomes}
        folder, seconds, cpu, rss = self.joiner_until("land", turn, expected)
        self.count(f"{folder}/warehouse/flywheel/{MODEL}_predictions", self.options.predictions)
        return {"cpu_s": cpu / rows * 1e6, "rate": rows / seconds, "rss_mb": rss}

    def joiner_seals(self, turn):
        folder, seconds, cpu, rss = self.joiner_until("seal", turn, {"training": self.options.predictions})
        self.count(f"{folder}/warehouse/flywheel/{MODEL}_training", self.options.predictions, self.labelled)
        rows = self.options.predictions
        return {"cpu_s": cpu / rows * 1e6, "rate": rows / seconds, "rss_mb": rss}

    # ---- the others

    def spark(self, turn):
        folder = self.folder("spark", turn)
        command = [f"{self.options.servers}/spark.sh", "run", Path(__file__).parent / "stream.py", "--brokers", self.brokers]
        command += ["--prefix", PREFIX, "--schemas", self.schemas(), "--dir", folder, "--jars", self.options.spark_jars]
        with open(folder / "log", "w") as log:
            said = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=log, text=True)
        if said.returncode:
            raise SystemExit(f"Spark failed:\n{(folder / 'log').read_text()[-3000:]}")
        said = json.loads(said.stdout.splitlines()[-1])
        rows = self.options.predictions
        self.count(f"{folder}/warehouse/db/joined", rows, self.labelled)
        return {"cpu_s": said["cpu_s"] / rows * 1e6, "rate": rows / said["seconds"], "rss_mb": said["rss_mb"]}

    def connect(self, turn):
        folder = self.folder("connect", turn)
        rows, name = self.options.predictions, f"sink-{turn}"
        (folder / "worker.properties").write_text(
            f"bootstrap.servers={self.brokers}\n"
            "key.converter=org.apache.kafka.connect.converters.ByteArrayConverter\n"
            f"value.converter=FlatAvroConverter\nvalue.converter.schema.file={self.schemas()}/predictions.avsc\n"
            f"offset.storage.file.filename={folder}/offsets\nplugin.discovery=only_scan\n"
            f"listeners=HTTP://127.0.0.1:{free_port()}\nconsumer.auto.offset.reset=earliest\nconsumer.max.poll.records=5000\n"
            "consumer.fetch.min.bytes=100000\nconsumer.max.partition.fetch.bytes=4194304\n"
        )
        (folder / "sink.properties").write_text(
            f"name={name}\nconnector.class=org.apache.iceberg.connect.IcebergSinkConnector\ntasks.max=1\n"
            f"topics={PREFIX}.{MODEL}.predictions\niceberg.tables=db.landed\niceberg.tables.auto-create-enabled=true\n"
            f"iceberg.catalog.type=hadoop\niceberg.catalog.warehouse={folder}/warehouse\n"
            "iceberg.tables.write-props.write.parquet.compression-codec=zstd\n"
            f"iceberg.control.topic=control-{name}\niceberg.control.commit.interval-ms=10000\niceberg.control.commit.timeout-ms=30000\n"
        )
        (folder / "log4j2.properties").write_text(
            "rootLogger.level=WARN\nrootLogger.appenderRef.out.ref=OUT\nappender.out.type=Console\nappender.out.name=OUT\n"
            "appender.out.layout.type=PatternLayout\nappender.out.layout.pattern=%d %p %c{1} %m%n\n"
        )
        self.control_topic(f"control-{name}")
        command = [self.options.java, "-Xmx2g", f"-Dlog4j2.configurationFile={folder}/log4j2.properties", "-cp", self.options.connect]
        command += ["org.apache.kafka.connect.cli.ConnectStandalone", folder / "worker.properties", folder / "sink.properties"]
        process = self.start(command, folder / "log", folder)
        table = f"{folder}/warehouse/db/landed"
        # The table is made when the first row is written.
        process.until(lambda: bool(glob.glob(f"{table}/metadata/v*.metadata.json")))
        start, cpu = time.monotonic(), process.cpu_s()
        process.until(lambda: self.added(table) >= rows)
        seconds, cpu, rss = time.monotonic() - start, process.cpu_s() - cpu, process.rss_mb()
        self.finish(process)
        self.count(table, rows)
        return {"cpu_s": cpu / rows * 1e6, "rate": rows / seconds, "rss_mb": rss}

    def control_topic(self, topic):
        subprocess.run([f"{self.options.bin}/fill", "topic", self.brokers, topic], check=True, stdout=subprocess.DEVNULL)

    def added(self, table):
        """Rows that the snapshots of a table in a folder added."""
        versions = glob.glob(f"{table}/metadata/v*.metadata.json")
        newest = max(versions, key=lambda path: int(re.search(r"v(\d+)\.", path)[1]))
        try:
            snapshots = json.loads(Path(newest).read_text()).get("snapshots", [])
        except ValueError:
            return 0  # it is being written
        return sum(int(each["summary"].get("added-records", 0)) for each in snapshots)

    def count(self, table, rows, labelled=None):
        """What lies in the table's data files must be what was sent, up to the records that move time on."""
        files = f"read_parquet('{table}/data/**/*.parquet', hive_partitioning = false)"
        label = "count(*) FILTER (label_good)" if labelled is not None else "NULL"
        # Four more predictions, an hour later, only move time on.
        found = duckdb.sql(f"SELECT count(*), count(DISTINCT prediction_id), {label} FROM {files}").fetchone()
        surplus = found[0] - rows
        if found[0] != found[1] or not 0 <= surplus <= PARTITIONS or found[2] not in (labelled, None):
            raise SystemExit(f"{table}: {found} are not {rows} rows with {labelled} true labels")
        shutil.rmtree(Path(table).parent.parent)
