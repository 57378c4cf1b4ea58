"""Logs one row again and again through the Python client, open loop: log.py URL BODY RATE SECONDS."""

import json
import sys
import time

from flywheel_client import Client

# Without a rate: so many rows wait at most, so that none is dropped.
WAITING = 2_000


def main():
    url, body, rate, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    with open(body, encoding="utf-8") as file:
        row = json.load(file)
    client = Client(url, "bench", model_version=row.pop("model_version"), max_records=100_000, max_bytes=1 << 30)
    start, thread_s, process_s = time.monotonic(), 0.0, time.process_time()
    count = 0
    while time.monotonic() < start + seconds:
        if rate:
            wait_s = start + count / rate - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
        elif count % WAITING == 0:
            client.flush(60)
        before = time.thread_time()
        client.log_prediction(**row)
        thread_s += time.thread_time() - before
        count += 1
    settled = client.flush(60)
    stats = client.stats()
    result = {
        "ok": stats.accepted,
        "bad": count - stats.accepted,
        "settled": settled,
        "seconds": time.monotonic() - start,
        "caller_us": thread_s / count * 1e6,
        "process_us": (time.process_time() - process_s) / count * 1e6,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
