"""Measures the KServe agent with its logger and Flywheel's sidecar side by side; see ../kserve.sh.

Cases: `cpu` (both logs take everything at once), `slow` (the log is late by 100 ms), `gone` (there is none). By default all.

Both take the same 100 features, about 3.3 kB, at the same open-loop rate, in turns. What is measured runs on core 0, all the
rest on core 1; CPU is user and system time of the process, by its clock, up to the moment when the log has everything.

- The agent stands before a model server, which it passes requests on to. A logged prediction is two events there (request,
  response), sent to a sink over HTTP. Its CPU per request is taken with the logger and without: the difference is what the
  logger adds, the whole is what a pod pays in which the agent does nothing but log.
- The sidecar takes a POST per prediction, with the features and what was predicted, and forwards them to Apache Kafka; its CPU
  is counted whole, intake, disk and forwarder. It is fed in two ways: by the Python client, as a model server would, and by
  single POSTs over kept connections.

`slow`: the sink answers after 100 ms; what comes back from the broker is late by 100 ms. `gone`: nobody listens; the broker is
killed. After the load each side gets SIGTERM, in `gone` only after its log has been back for a while; the sidecar is started
again, as its pod would be. Lost is what the log then does not have.
"""

import argparse
import datetime
import json
import os
import signal
import statistics
import sys

from sides import OUTAGE_RATE, Run

# Predictions a second; 0 is as fast as it goes.
RATES = (500, 2_000, 0)
# What the sidecar is held to, fed by the client.
CPU_RATIO_MAX, RSS_MB_MAX = 0.1, 64


def say(**values):
    print(json.dumps({"load": os.getloadavg()[0], **values}), file=sys.stderr, flush=True)


def spread(values, digits=0):
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def cpu(run, options, bars):
    rows = []
    for rate in RATES:
        rounds = []
        for _ in range(options.rounds):
            sides = {
                "plain": run.agent_cpu(False, rate, options.seconds),
                "logger": run.agent_cpu(True, rate, options.seconds),
                "client": run.our_cpu("client", rate, options.seconds),
                "single": run.our_cpu("single", rate, options.seconds),
            }
            say(case="cpu", rate=rate, **{name: {key: round(value, 2) for key, value in side.items()} for name, side in sides.items()})
            rounds.append(sides)
        pick = lambda name, key="us": [sides[name][key] for sides in rounds]  # noqa: E731
        added = [sides["logger"]["us"] - sides["plain"]["us"] for sides in rounds]
        rows.append(f"| {f'{rate}/s' if rate else 'as fast as it goes'} | agent, logger off | {spread(pick('plain'))} | | |")
        rows.append(f"| | agent, logger on | {spread(pick('logger'))}: {spread(added)} more | | |")
        where = f"at {rate}/s" if rate else "as fast as it goes"
        for name, feed in (("client", "the Python client"), ("single", "single POSTs")):
            by_logger = [ours / theirs for ours, theirs in zip(pick(name), added)]
            by_agent = [ours / theirs for ours, theirs in zip(pick(name), pick("logger"))]
            rows.append(
                f"| | sidecar, fed by {feed} | {spread(pick(name), 1)} | {spread(by_logger, 3)} | {spread(by_agent, 3)} |"
            )
            if name == "client":
                bars.append((f"CPU ÷ what the logger adds, {where}", statistics.median(by_logger), CPU_RATIO_MAX))
        rows.append(f"| | Python client, all its threads | {spread(pick('client', 'process_us'), 1)} | | |")
    return [
        "| rate | | CPU, µs a prediction | ÷ what the logger adds | ÷ the agent |",
        "|---|---|---|---|---|",
        *rows,
    ]


def outage(run, case, options, bars):
    rows = []
    for name, measure in (("agent", run.agent_outage), ("sidecar", run.our_outage)):
        result = measure(case, options.minute)
        say(case=case, side=name, **{key: round(value, 2) for key, value in result.items()})
        rows.append(
            f"| {case} | {name} | {result['cpu_us']:.0f} | {result['start_mb']:.0f} | {result['end_mb']:.0f} | "
            f"{result['max_mb']:.0f} | {result['lost']:.0f} of {result['logged']:.0f} |"
        )
    # The last is the sidecar's.
    bars += [(f"MB at most, {case}", result["max_mb"], RSS_MB_MAX), (f"predictions lost, {case}", result["lost"], 0)]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("agent", "around", "bin", "servers", "dir"):
        parser.add_argument(f"--{name}", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3, help="of each CPU measurement")
    parser.add_argument("--seconds", type=int, default=10, help="of load in a round")
    parser.add_argument("--minute", type=int, default=60, help="seconds of load of `slow` and `gone`")
    parser.add_argument("cases", nargs="*", default=["cpu", "slow", "gone"])
    options = parser.parse_args()
    run = Run(options)
    lines, bars = [], []
    # So that nothing outlives this process when it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        run.start_kafka()
        if "cpu" in options.cases:
            lines += cpu(run, options, bars)
        outages = [case for case in options.cases if case != "cpu"]
        if outages:
            lines += ["", f"| log | {OUTAGE_RATE}/s through | CPU, µs | MB at the start | after {options.minute} s | at most | predictions lost |", "|---|---|---|---|---|---|---|"]
            for case in outages:
                lines += outage(run, case, options, bars)
    finally:
        run.end_all()
        if hasattr(run, "_proxy"):
            run._proxy.end()
        if hasattr(run, "_holder"):
            run.release_kafka()
    with open("/proc/cpuinfo") as cpuinfo:
        model = next(line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name"))
    sizes = f"{run.agent_body.stat().st_size} and {run.our_body.stat().st_size} B"
    print(f"{datetime.date.today()}, {os.cpu_count()} cores of {model}; bodies of {sizes}; median (least–most) of {options.rounds}\n")
    print("\n".join(lines) + "\n")
    for name, value, bar in bars:
        print(f"{'met   ' if value <= bar else 'MISSED'} {name}: {value:.3g}, bar ≤ {bar:g}")
    return 0 if all(value <= bar for _, value, bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
