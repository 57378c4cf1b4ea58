"""Threads, asyncio, forked workers, the end of the interpreter."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from sidecar import BOUND_S, until

from flywheel_client import ids

HERE = Path(__file__).parent


def run(script, *arguments):
    """Runs a script with the package and these tests on its path; what it printed."""
    path = os.pathsep.join([str(HERE), str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", script, *arguments]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, timeout=BOUND_S, capture_output=True, text=True
    )
    assert ended.returncode == 0 and not ended.stderr, ended.stderr
    return ended.stdout


def test_threads_share_a_client(sidecar, client, log):
    ids = [[] for _ in range(8)]

    def work(mine):
        for _ in range(500):
            mine.append(log(client))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush(120)
    assert set(sidecar.await_ids(sum(ids, [])).values()) == {1}
    assert (client.stats().logged, client.stats().accepted) == (4_000, 4_000)


def test_the_loop_of_asyncio_goes_on(sidecar, client, log):
    async def work():
        async def request():
            return log(client)

        ids = list(await asyncio.gather(*(request() for _ in range(300))))
        assert await client.drain(120)
        sidecar.signal(signal.SIGSTOP)
        ids.append(log(client))
        assert not await client.drain(0.05)
        turns = 0
        draining = asyncio.ensure_future(client.drain(120))
        while turns < 1_000:
            await asyncio.sleep(0)
            turns += 1
        assert not draining.done()
        sidecar.signal(signal.SIGCONT)
        assert await draining
        assert await client.drain()
        return ids

    ids = asyncio.run(work())
    sidecar.await_ids(ids)


def test_a_loop_that_ends_while_it_drains_hurts_nobody(absent, client, log):
    ids = [log(client)]

    async def work():
        asyncio.ensure_future(client.drain())
        await asyncio.sleep(0)

    asyncio.run(work())
    absent.start()
    ids.append(log(client))
    assert client.flush(120)
    absent.await_ids(ids)


def fork(work):
    """Runs `work` in a forked child; waits for it and gives what it returned, which has a JSON form."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(source)
            os.write(sink, json.dumps(work()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(sink)
    with os.fdopen(source) as said:
        answer = said.read()
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    return json.loads(answer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_leaves_its_parents_rows_alone(absent, client, log):
    ids = [log(client) for _ in range(50)]
    until("the thread", lambda: client._sender._is_away)

    def work():
        assert client.stats().logged == 0
        mine = [log(client) for _ in range(30)]
        assert client.close(BOUND_S)
        assert client.stats().accepted == 30
        return mine

    # The sidecar comes while the child tries to reach it.
    starting = threading.Timer(0.5, absent.start)
    starting.start()
    ids += fork(work)
    starting.join()
    assert client.flush(120)
    # Nothing was sent before the sidecar was there, so nothing twice.
    assert set(absent.await_ids(ids).values()) == {1}
    assert (client.stats().logged, client.stats().accepted) == (50, 50)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_children_mint_ids_of_their_own():
    random.seed(1)
    made = [fork(lambda: [random.seed(1), ids.mint(5)])[1] for _ in range(3)]
    assert len({*made, ids.mint(5)}) == 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forks_in_the_middle_of_traffic(sidecar, client, log):
    ids, ended = [], threading.Event()

    def work():
        while not ended.is_set():
            ids.append(log(client))
            ended.wait(0.0005)

    thread = threading.Thread(target=work)
    thread.start()
    until("traffic", lambda: client.stats().accepted > 100)

    def child():
        assert client._sender._connection is None, "the child has its parent's connection"
        mine = [log(client) for _ in range(100)]
        assert client.close(BOUND_S)
        return mine

    forked = sum((fork(child) for _ in range(5)), [])
    ended.set()
    thread.join()
    assert client.flush(120)
    assert set(sidecar.await_ids(ids + forked).values()) == {1}
    # The connection of the parent outlived its children.
    assert client.stats().retried == 0


APP = """
import os
from flywheel_client import Client
client = Client(os.environ["SIDECAR"], "rows", model_version="1")
warm = client.log_prediction(entity={}, features={"name": "warm-up"}, prediction={"score": 0})

def app(environ, start_response):
    answer = client.log_prediction(entity={"customer": str(os.getpid())}, features={}, prediction={"score": 0.5})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {answer} {warm}".encode()]
"""


def test_workers_of_gunicorn(sidecar, tmp_path):
    (tmp_path / "served.py").write_text(APP)
    path = os.pathsep.join([str(tmp_path), str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])
    log = tmp_path / "log"
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--bind", "127.0.0.1:0", "served:app"]
    with open(log, "wb") as output:
        server = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path, "SIDECAR": sidecar.url}, stderr=output
        )
    try:
        until("gunicorn", lambda: log.read_text().count("Booting worker") == 3)
        url = re.search(r"Listening at: (\S+)", log.read_text())[1]
        # Every worker shall have answered, however the kernel shares the connections out.
        answers = []

        def ask():
            body = urllib.request.urlopen(url, timeout=BOUND_S).read().decode()
            answers.append(body.split())
            return len({answer[0] for answer in answers}) == 3 and len(answers) >= 60

        until("each worker", ask)
    finally:
        # The rows of the last requests are sent while the workers end.
        server.send_signal(signal.SIGTERM)
        server.wait(BOUND_S)
    ids = [answer[1] for answer in answers] + [answers[0][2]]
    assert set(sidecar.await_ids(ids).values()) == {1}
    assert "Traceback" not in log.read_text(), log.read_text()


def test_what_is_queued_at_the_end_of_the_interpreter_is_sent(sidecar):
    script = """
import sys
from conftest import log
from flywheel_client import Client
client = Client(sys.argv[1], "rows", model_version="1", exit_timeout_s=120)
print(" ".join(log(client) for _ in range(500)))
"""
    ids = run(script, sidecar.url).split()
    assert len(ids) == 500
    assert set(sidecar.await_ids(ids).values()) == {1}


def test_the_end_of_the_interpreter_does_not_wait_for_ever(absent):
    script = """
import sys
from conftest import log
from flywheel_client import Client
client = Client(sys.argv[1], "rows", model_version="1", exit_timeout_s=0.2)
print(log(client))
"""
    import_silently = "import logging; logging.getLogger('flywheel_client').disabled = True\n"
    assert run(import_silently + script, absent.url)


def test_a_signal_handler_that_logs_in_the_middle_of_logging(sidecar):
    script = """
import signal, sys
from conftest import log
from flywheel_client import Client
client = Client(sys.argv[1], "rows", model_version="1", max_records=1_000_000)
ids = []
again = 0.0001
def handle(*_):
    ids.append(log(client))
    signal.setitimer(signal.ITIMER_REAL, again)
signal.signal(signal.SIGALRM, handle)
handle()
for _ in range(20_000):
    ids.append(log(client))
again = 0
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(ids) > 20_100, "no signals came"
assert client.flush(120)
assert client.stats().accepted == client.stats().logged == len(ids), client.stats()
"""
    run(script, sidecar.url)
