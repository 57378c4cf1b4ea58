"""Ids that are made here, so that a row sent twice is recognised, and the caller has its id at once."""

import os
import random
import time
import uuid
from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)

# The last millisecond that a UUIDv7 can hold.
TIME_MS_MAX = (1 << 48) - 1

# Of our own, so that a model that seeds Python's does not make every worker mint the same ids; seeded by the kernel, which
# is not asked for each id, since that is a system call.
_random = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


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
    bits = _random.getrandbits(74)
    # Version 7 above the first 12 of the bits, variant 10 above the others (RFC 9562).
    text = "%012x%016x" % (time_ms, 0x8000_0000_0000_0000 | bits >> 12)
    return f"{text[:8]}-{text[8:12]}-7{bits & 0xFFF:03x}-{text[12:16]}-{text[16:]}"


def text(value: "str | uuid.UUID") -> str:
    """The text of an id that was brought."""
    if isinstance(value, str):
        return value
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"an id is text or a UUID, not {type(value).__name__}")
