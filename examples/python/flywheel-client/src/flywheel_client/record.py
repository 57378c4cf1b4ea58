"""What is on its way, and what is told about it."""

from dataclasses import dataclass, field
from typing import Any


class Record:
    """One row, as it will be sent each time."""

    __slots__ = ("kind", "id", "body", "traceparent", "logged_s", "number", "faults")

    def __init__(
        self,
        kind: str,
        id: str,
        body: bytes,
        traceparent: "str | None",
        logged_s: float,
        faults: "list[dict[str, str]] | None" = None,
    ) -> None:
        self.kind = kind
        """`predictions` or `outcomes`, as in the path."""
        self.id = id
        self.body = body
        self.traceparent = traceparent
        self.logged_s = logged_s
        """On the monotonic clock."""
        self.number = 0
        """From 1 in the order in which rows were logged; the backlog gives it."""
        self.faults = faults
        """Why it is not sent at all."""


# What a record takes in memory beside the bytes of its body: the objects, by sys.getsizeof.
OVERHEAD_BYTES = 400


@dataclass(frozen=True)
class Refusal:
    """A row that will never be accepted."""

    kind: str
    """`predictions` or `outcomes`."""
    id: str
    """The prediction_id, or the event_id of an outcome."""
    status: int
    """Of the sidecar's answer; 422 as a rule, and 0 where the row could not be written as JSON and was not sent."""
    errors: "list[dict[str, Any]]"
    """Every fault: `pointer` (RFC 6901), `reason`, `detail`."""
    body: bytes = field(repr=False)
    """The row as it was sent; empty where it was not."""


@dataclass(frozen=True)
class Stats:
    """Counts of rows since the start of this process, of one moment: logged = accepted + refused + dropped + queued."""

    logged: int
    accepted: int
    """Answered with 202: in the sidecar's spool."""
    refused: int
    dropped: "dict[str, int]"
    """By reason: `queue_full` (by rows or bytes), `expired` (older than `max_age_s`), `closed` (logged after `close`, or
    not sent when its time was over)."""
    queued: int
    """Not settled: waiting, or sent and not answered."""
    queued_bytes: int
    retried: int
    """Rows that were sent again; one row may count several times."""
    callback_errors: int
    """Exceptions that `on_refused` raised."""
