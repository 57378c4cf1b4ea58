"""Measures Flywheel's joiner beside Spark Structured Streaming and Kafka Connect's Iceberg sink; see ../joiner.sh.

Cases: `land` (Connect's sink and the joiner write what is in the topics to Iceberg) and `seal` (the joiner and Spark join
predictions with their outcomes, from the topics to sealed rows). By default both.

One broker holds two topics of a model in 4 partitions: predictions of 30 declared fields, and for a fifth of them an outcome in
their window. All sides read the same records, from the beginning to the end, in turns, with both cores; CPU is user and system time
of the process by its clock, memory the most that was resident. The joiner's CPU counts from the start of its process, Spark's from
the start of its query, Connect's from the first row that it writes: what a JVM takes to start is not counted. Every table is
counted in the end: rows, and rows with a true label.

In `land` no tick passes, so that the joiner lands and does nothing else; Connect lands the predictions alone. In `seal` the joiner
does everything: it lands, keeps its index, seals, and follows with revisions and unmatched statements.

`visible` is about the joiner alone, and runs only when it is named: 200 predictions a second with an outcome each, at a grid of 30 s
and a commit interval of 5 s. How long after its append is an outcome in a committed snapshot of `_outcomes`, which `_training_live`
reads; and how long after its tick is a row in one of `_training`?
"""

import argparse
import datetime
import json
import os
import signal
import statistics
import sys

from sides import Run

# What the joiner is held to.
LAND_RATIO_MAX, SEAL_RATIO_MAX, RSS_MB_MAX = 0.25, 0.1, 512


def say(**values):
    print(json.dumps({"load": os.getloadavg()[0], **values}), file=sys.stderr, flush=True)


def spread(values, digits=1):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def rounds_of(options, case, sides):
    """Every side once a round; results by side."""
    results = {name: [] for name in sides}
    for turn in range(options.rounds):
        for name, measure in sides.items():
            result = measure(turn)
            say(case=case, side=name, **{key: round(value, 3) for key, value in result.items()})
            results[name].append(result)
    return results


def rows_of(case, results, ours, theirs):
    """Lines of the table, and the ratio of each round."""
    ratios = [one["cpu_s"] / other["cpu_s"] for one, other in zip(results[ours], results[theirs])]
    lines = []
    for name, rounds in results.items():
        cpu, rate, rss = ([each[key] for each in rounds] for key in ("cpu_s", "rate", "rss_mb"))
        ratio = spread(ratios, 3) if name == ours else ""
        lines.append(f"| {case} | {name} | {spread(cpu)} | {spread([value / 1000 for value in rate])} | {spread(rss, 0)} | {ratio} |")
    return lines, statistics.median(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bin", "servers", "dir", "java", "connect", "spark-jars"):
        parser.add_argument(f"--{name}", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--predictions", type=int, default=1_000_000, help="in the topic")
    parser.add_argument("cases", nargs="*", default=["land", "seal"])
    options = parser.parse_args()
    run = Run(options)
    lines, bars, memory = [], [], []
    # So that nothing outlives this process when it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        run.start_kafka()
        if {"land", "seal"} & set(options.cases):
            run.fill("rows")
        if "land" in options.cases:
            results = rounds_of(options, "land", {"Connect": run.connect, "joiner": run.joiner_lands})
            more, ratio = rows_of("land", results, "joiner", "Connect")
            lines += more
            bars.append(("land: CPU ÷ Connect's", ratio, LAND_RATIO_MAX))
            memory += [each["rss_mb"] for each in results["joiner"]]
        if "visible" in options.cases:
            for what, seconds in run.visible().items():
                print(f"{what}: " + ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))
        if "seal" in options.cases:
            run.fill("end")
            results = rounds_of(options, "seal", {"Spark": run.spark, "joiner": run.joiner_seals})
            more, ratio = rows_of("seal", results, "joiner", "Spark")
            lines += more
            bars.append(("seal: CPU ÷ Spark's", ratio, SEAL_RATIO_MAX))
            memory += [each["rss_mb"] for each in results["joiner"]]
    finally:
        run.end()
    if not bars:
        return 0
    bars.append(("MB at most", max(memory), RSS_MB_MAX))
    with open("/proc/cpuinfo") as cpuinfo:
        model = next(line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name"))
    print(
        f"{datetime.date.today()}, {os.cpu_count()} cores of {model}; {options.predictions} predictions of {run.bytes} B; "
        f"median (least–most) of {options.rounds}\n"
    )
    print("| | | CPU-s a million rows | thousand rows/s | MB at most | CPU ÷ the other's |\n|---|---|---|---|---|---|")
    print("\n".join(lines) + "\n")
    for name, value, bar in bars:
        print(f"{'met   ' if value <= bar else 'MISSED'} {name}: {value:.3g}, bar ≤ {bar:g}")
    return 0 if all(value <= bar for _, value, bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
