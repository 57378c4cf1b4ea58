"""Ids that are made here, so that a row sent twice is recognised, and the caller has its id at once."""

import os
import time
import uuid
from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)

# The last millisecond that a UUIDv7 can hold.
TIME_MS_MAX = (1 << 48) - 1

# RFC 9562: the first digit of the fourth group has 10 as its upper bits.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def micros(value: "datetime | int") -> int:
    """Microseconds since the epoch. ValueError for a datetime without time zone, TypeError for anything else."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError("a datetime without time zone is no instant; give it one, such as datetime.timezone.utc")
        return int((value - EPOCH) // MICROSECOND)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError(f"a time is a datetime with a time zone or integer microseconds, not {type(value).__name__}")


def mint(time_ms: int) -> str:
    """A UUIDv7 of `time_ms`, milliseconds since the epoch."""
    # The kernel's random numbers: a generator of our own would go on alike in forked workers.
    bits = os.urandom(10).hex()
    stamp = "%012x" % time_ms
    return f"{stamp[:8]}-{stamp[8:]}-7{bits[:3]}-{_VARIANT[bits[3]]}{bits[4:7]}-{bits[7:19]}"


def text(value: "str | uuid.UUID") -> str:
    """The text of an id that was brought."""
    if isinstance(value, str):
        return value
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"an id is text or a UUID, not {type(value).__name__}")
