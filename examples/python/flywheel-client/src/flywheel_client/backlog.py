"""Where callers leave rows and the background thread fetches them.

Every section under the lock is a handful of assignments: the background thread takes all rows by exchanging the deque.
So a caller waits for nobody's work. The lock is reentrant, because a signal handler or a destructor that logs may
interrupt a caller in one of these sections.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from .record import OVERHEAD_BYTES, Record, Stats

# How late a pause notices that it is to end.
_PAUSE_STEP_S = 0.05

DROP_REASONS = ("queue_full", "expired", "closed")


class Backlog:
    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self.reset()

    def reset(self) -> None:
        """Forgets everything, as a forked child must: rows, counts and locks are the parent's."""
        self._lock = threading.RLock()
        self._rows: "deque[Record]" = deque()
        self._asleep = False
        self._wake = threading.Lock()
        self._wake.acquire()
        self._waiters: "list[tuple[int, Callable[[], None]]]" = []
        self.closing = False
        """No more rows are taken."""
        self.stopping = False
        """The background thread is to end."""
        self._logged = self._accepted = self._refused = self._retried = self._callback_errors = 0
        self._dropped = dict.fromkeys(DROP_REASONS, 0)
        self._queued = self._queued_bytes = 0

    # ---- callers

    def put(self, record: Record) -> None:
        """Takes a row, or drops it and counts it: the newest, since making room could take time."""
        size = len(record.body) + OVERHEAD_BYTES
        with self._lock:
            self._logged += 1
            record.number = self._logged
            if self.closing:
                self._dropped["closed"] += 1
            elif self._queued >= self._max_records or self._queued_bytes + size > self._max_bytes:
                self._dropped["queue_full"] += 1
            else:
                self._queued += 1
                self._queued_bytes += size
                self._rows.append(record)
                if self._asleep:
                    self._rouse()

    def when_settled(self, notify: "Callable[[], None]") -> None:
        """Calls `notify` once every row logged so far is settled; it must be quick, and may come from any thread."""
        with self._lock:
            if self._queued:
                self._waiters.append((self._logged, notify))
                if self._asleep:
                    self._rouse()
                return
        notify()

    def forget(self, notify: "Callable[[], None]") -> None:
        with self._lock:
            self._waiters = [waiter for waiter in self._waiters if waiter[1] is not notify]

    def stats(self) -> Stats:
        with self._lock:
            return Stats(
                logged=self._logged,
                accepted=self._accepted,
                refused=self._refused,
                dropped=dict(self._dropped),
                queued=self._queued,
                queued_bytes=self._queued_bytes,
                retried=self._retried,
                callback_errors=self._callback_errors,
            )

    def close(self) -> None:
        with self._lock:
            self.closing = True

    def stop(self) -> None:
        with self._lock:
            self.closing = self.stopping = True
            if self._asleep:
                self._rouse()

    def abandon(self) -> None:
        """Counts as dropped what nobody will settle any more."""
        with self._lock:
            self._dropped["closed"] += self._queued
            self._queued = self._queued_bytes = 0
            self._rows.clear()
            waiters, self._waiters = self._waiters, []
        for _, notify in waiters:
            notify()

    def _rouse(self) -> None:
        self._asleep = False
        self._wake.release()

    # ---- the background thread

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits until all is settled."""
        return bool(self._waiters)

    def take(self) -> "deque[Record]":
        """All rows that came since the last time, in their order."""
        with self._lock:
            rows, self._rows = self._rows, deque()
        return rows

    def wait_for_rows(self) -> None:
        """Until a row comes, somebody wants to know when all is settled, or it is to stop."""
        with self._lock:
            if self.stopping or self._rows or self._waiters:
                return
            self._asleep = True
        # Whoever sets `_asleep` back releases it once.
        self._wake.acquire()

    def pause(self, seconds: float) -> None:
        """Lets time go by; ended early by `stop` alone, within a step."""
        end = time.monotonic() + seconds
        while not self.stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _PAUSE_STEP_S))

    def settle(
        self, records: "list[Record]", *, accepted: int = 0, refused: int = 0, expired: int = 0, callback_errors: int = 0
    ) -> None:
        """Counts rows that are done with."""
        size = sum([len(record.body) for record in records]) + OVERHEAD_BYTES * len(records)
        with self._lock:
            self._accepted += accepted
            self._refused += refused
            self._dropped["expired"] += expired
            self._callback_errors += callback_errors
            self._queued -= len(records)
            self._queued_bytes -= size

    def count_retries(self, rows: int) -> None:
        with self._lock:
            self._retried += rows

    def notify(self, oldest: "int | None") -> None:
        """Tells those who wait that every row before `oldest` is settled, or every one that was fetched."""
        if not self._waiters:
            return
        with self._lock:
            if oldest is None:
                oldest = self._rows[0].number if self._rows else self._logged + 1
            done = [notify for number, notify in self._waiters if number < oldest]
            self._waiters = [waiter for waiter in self._waiters if waiter[0] >= oldest]
        for notify in done:
            notify()
