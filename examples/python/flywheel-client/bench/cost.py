"""What a log of 100 features costs the thread that calls, against `requests.Session().post` of the same dict to the same
sidecar. One JSON line a round, times in microseconds a row.

    cost.py UNIX_URL HTTP_URL ROUNDS

The cost is the CPU time of the calling thread (`time.thread_time`), all of which it holds the interpreter's lock. It is
taken twice: with calls close together (bursts of 50, the background thread sending meanwhile), and with one call a
millisecond of a row just made, as a model server would, when the processor's caches have forgotten the code. `process` is the CPU time of the whole process
in the first way, background thread included, so that nothing hides there.
"""

import json
import random
import sys
import time

import requests

from flywheel_client import Client

ROWS = 20_000
POSTS = 1_000
PACED = 1_000
BURST = 50
PAUSE_S = 0.001
NAMES = [f"feature_{place:02}" for place in range(100)]


def value(place, source):
    match place % 20:
        case 3 | 9 | 15:
            return source.getrandbits(24)
        case 5:
            return f"category-{source.randrange(1000)}"
        case 11:
            return source.random() < 0.5
        case _:
            return source.random() * 10 ** source.randrange(4)


def make(source):
    return {
        "entity": {"customer": f"c-{source.randrange(1000)}"},
        "features": {name: value(place, source) for place, name in enumerate(NAMES)},
        "prediction": {"score": source.random()},
    }


def burst(call, rows, count, settle):
    """CPU of this thread and of the process, of `count` calls; waiting does not count as either's work."""
    thread_ns = 0
    process_ns = time.process_time_ns()
    for start in range(0, count, BURST):
        before = time.thread_time_ns()
        for number in range(start, start + BURST):
            call(rows[number % len(rows)])
        thread_ns += time.thread_time_ns() - before
        time.sleep(PAUSE_S)
    settle()
    return thread_ns / count / 1000, (time.process_time_ns() - process_ns) / count / 1000


def paced(call, source, count):
    thread_ns = 0
    for _ in range(count):
        time.sleep(PAUSE_S)
        row = make(source)
        before = time.thread_time_ns()
        call(row)
        thread_ns += time.thread_time_ns() - before
    return thread_ns / count / 1000


def main():
    unix_url, http_url, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    source = random.Random(1)
    # They take turns, so that no branch is learnt by heart.
    bodies = [make(source) for _ in range(64)]
    client = Client(unix_url, "bench", model_version="1")
    session = requests.Session()
    session.trust_env = False  # looks for proxies at every call, which would be to its disadvantage
    url = f"{http_url}/v1/models/bench/predictions"

    def log(row):
        client.log_prediction(entity=row["entity"], features=row["features"], prediction=row["prediction"])

    def post(row):
        answer = session.post(url, json={"model_version": "1", **row})
        assert answer.status_code == 202, answer.text

    def settle():
        assert client.flush(60)

    for call in (log, post):
        burst(call, bodies, 200, settle)
    for _ in range(rounds):
        client_us, client_process_us = burst(log, bodies, ROWS, settle)
        requests_us, requests_process_us = burst(post, bodies, POSTS, settle)
        line = {
            "client": client_us,
            "client_process": client_process_us,
            "requests": requests_us,
            "requests_process": requests_process_us,
            "client_paced": paced(log, source, PACED),
            "requests_paced": paced(post, source, PACED),
        }
        print(json.dumps(line), flush=True)
    settle()
    stats = client.stats()
    assert stats.accepted == stats.logged and not stats.retried, f"not every row was accepted at once: {stats}"


if __name__ == "__main__":
    main()
