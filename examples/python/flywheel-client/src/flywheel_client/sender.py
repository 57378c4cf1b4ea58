"""The background thread: it fetches rows from the backlog, sends them and settles them by their answers.

Rows leave within `LINGER_S`, those that came meanwhile together, as NDJSON; at once, where a request is full or somebody waits
for them. Up to `WINDOW` requests are on their way at once.

| answer | what becomes of the rows |
|---|---|
| 202 | accepted |
| 207 | each by its own status |
| 408, 429, 5xx | sent again, after `Retry-After` or a growing pause |
| 413 of several rows | sent again in smaller requests |
| any other | refused |
| none within `ANSWER_WITHIN_S`, or the connection ends | sent again over a new one, with the same ids |

Rows are sent again until they are older than `max_age_s`. They keep their order among those that wait, but a row may
overtake one that is sent again: a row has its own time, and nothing is read from the order.
"""

import json
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from .backlog import Backlog
from .connection import Address, Answer, Connection
from .record import Record, Refusal

_log = logging.getLogger("flywheel_client")

# A process that is killed loses what it has not sent, so this is short; but each request wakes three threads of the sidecar,
# which costs more than ten rows do: at 2,000 rows/s forty share one.
LINGER_S = 0.02
# After a row the thread looks for the next by itself, since to be woken costs the caller a system call.
STAY_AWAKE_S = 0.1
# Below the sidecar's defaults (limits.batch_rows, limits.body_bytes).
BATCH_ROWS = 500
BATCH_BYTES = 256 << 10
# So many requests that the sidecar has the next one when it answers one.
WINDOW = 4
# A sidecar that works answers within milliseconds, and within a disk's worst second.
ANSWER_WITHIN_S = 10.0
# The pauses between attempts while nobody answers.
BACK_OFF_S = (0.05, 2.0)
# The longest Retry-After that is believed.
RETRY_AFTER_MAX_S = 30.0

_PASSING = frozenset((408, 429, 500, 502, 503, 504))


class _Request:
    __slots__ = ("records", "sent_s")

    def __init__(self, records: "list[Record]", sent_s: float) -> None:
        self.records = records
        self.sent_s = sent_s


class Sender:
    def __init__(
        self,
        backlog: Backlog,
        address: Address,
        model: str,
        max_age_s: float,
        on_refused: "Callable[[Refusal], object] | None",
    ) -> None:
        self._backlog = backlog
        self._address = address
        self._model = model
        self._max_age_s = max_age_s
        self._on_refused = on_refused
        self._connection: "Connection | None" = None
        self._waiting: "deque[Record]" = deque()
        """By number."""
        self._in_flight: "deque[_Request]" = deque()
        self._not_before_s = 0.0
        self._last_sent_s = 0.0
        self._back_off_s = 0.0
        self._batch_rows = BATCH_ROWS
        self._is_away = False

    def run(self) -> None:
        """Until the backlog says stop. What is then left is counted as dropped."""
        while not self._backlog.stopping:
            try:
                self._turn()
            except Exception:
                # A fault of this package: the rows stay, and the thread as well.
                _log.exception("unexpected; going on with a new connection")
                self._give_up_connection()
                self._backlog.pause(BACK_OFF_S[1])
        self.disconnect()
        self._backlog.abandon()

    def disconnect(self) -> None:
        """Closes this process's end; where it was forked, the other's stays open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _turn(self) -> None:
        backlog = self._backlog
        self._waiting.extend(backlog.take())
        if not self._waiting and not self._in_flight:
            backlog.notify(None)
            if time.monotonic() < self._last_sent_s + STAY_AWAKE_S:
                backlog.pause(LINGER_S)
            else:
                backlog.wait_for_rows()
            return
        now_s = time.monotonic()
        self._drop_expired(now_s)
        try:
            self._send(now_s)
            self._receive()
        except OSError as error:
            self._lost(error)
        backlog.notify(self._oldest())

    def _send(self, now_s: float) -> None:
        """Writes as many requests as are due."""
        while self._waiting and len(self._in_flight) < WINDOW:
            if now_s < self._due_s():
                return
            if self._connection is not None and not self._in_flight and not self._connection.is_alive():
                # The sidecar closes a connection that rests for long, and each when it stops.
                self.disconnect()
            if self._connection is None:
                self._connection = Connection(self._address)
            records = self._cut_batch()
            if not records:
                return
            self._last_sent_s = now_s
            # Before it is written: a part of it may have gone out when writing fails.
            self._in_flight.append(_Request(records, now_s))
            self._connection.send(self._request(records))

    def _due_s(self) -> float:
        """When the rows that wait are to be sent."""
        if self._backlog.is_awaited or len(self._waiting) >= self._batch_rows:
            return self._not_before_s
        return max(self._not_before_s, self._waiting[0].logged_s + LINGER_S)

    def _cut_batch(self) -> "list[Record]":
        """The next rows that can go in one request: of one kind, in one trace. Rows that cannot be sent are refused."""
        batch: "list[Record]" = []
        size = 0
        while self._waiting and len(batch) < self._batch_rows:
            record = self._waiting[0]
            if record.faults is not None:
                self._waiting.popleft()
                self._refuse([record], 0, [record.faults])
                continue
            if batch:
                first = batch[0]
                if record.kind != first.kind or record.traceparent != first.traceparent:
                    break
                if size + len(record.body) > BATCH_BYTES:
                    break
            size += len(record.body) + 1
            batch.append(self._waiting.popleft())
        return batch

    def _request(self, records: "list[Record]") -> bytes:
        first = records[0]
        if len(records) == 1:
            media_type, body = "application/json", first.body
        else:
            media_type, body = "application/x-ndjson", b"\n".join([record.body for record in records])
        trace = "" if first.traceparent is None else f"traceparent: {first.traceparent}\r\n"
        head = (
            f"POST /v1/models/{self._model}/{first.kind} HTTP/1.1\r\nHost: sidecar\r\n"
            f"Content-Type: {media_type}\r\n{trace}Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _receive(self) -> None:
        """Waits for answers, or until something else is due."""
        now_s = time.monotonic()
        if self._connection is None or not self._in_flight:
            if self._waiting:
                self._backlog.pause(self._due_s() - now_s)
            return
        if now_s > self._in_flight[0].sent_s + ANSWER_WITHIN_S:
            raise TimeoutError(f"no answer within {ANSWER_WITHIN_S:g} s")
        # Rows may be due before an answer comes, unless the window is full.
        timeout_s = ANSWER_WITHIN_S
        if len(self._in_flight) < WINDOW:
            timeout_s = min(self._due_s() - now_s, LINGER_S) if self._waiting else LINGER_S
        for answer in self._connection.receive(timeout_s):
            if not self._in_flight:
                raise ConnectionAbortedError("an answer to no request")
            self._answered(self._in_flight.popleft().records, answer)
            if answer.closes:
                raise ConnectionResetError("the sidecar closed the connection")

    def _answered(self, records: "list[Record]", answer: Answer) -> None:
        status = answer.status
        if status not in _PASSING:
            self._back_off_s = 0.0
            self._is_heard()
        if status == 202:
            self._backlog.settle(records, accepted=len(records))
        elif status == 207:
            self._sort_out(records, answer)
        elif status in _PASSING:
            self._put_back(records, self._pause_s(answer.retry_after_s))
        elif status == 413 and len(records) > 1:
            self._batch_rows = max(1, len(records) // 2)
            self._put_back(records, 0.0)
        else:
            self._refuse(records, status, [_errors(answer.body)] * len(records))

    def _sort_out(self, records: "list[Record]", answer: Answer) -> None:
        """Each row by its own result."""
        results = json.loads(answer.body)["results"]
        if len(results) != len(records):
            raise ConnectionAbortedError("an answer with another number of results than rows")
        accepted, again = [], []
        for record, result in zip(records, results):
            if result["status"] == 202:
                accepted.append(record)
            elif result["status"] in _PASSING:
                again.append(record)
            else:
                self._refuse([record], result["status"], [result.get("errors", [])])
        self._backlog.settle(accepted, accepted=len(accepted))
        if again:
            self._put_back(again, self._pause_s(answer.retry_after_s))

    def _refuse(self, records: "list[Record]", status: int, errors: "list[Any]") -> None:
        callback_errors = 0
        for record, faults in zip(records, errors):
            if self._on_refused is None:
                continue
            try:
                self._on_refused(Refusal(record.kind, record.id, status, faults, record.body))
            except BaseException:
                # Whatever it raises, even SystemExit: this thread serves everyone.
                callback_errors += 1
                _log.exception("on_refused raised")
        self._backlog.settle(records, refused=len(records), callback_errors=callback_errors)

    def _lost(self, error: OSError) -> None:
        if not self._is_away:
            self._is_away = True
            _log.warning("the sidecar at %s does not answer (%s); rows wait", self._address.name, error)
        self._give_up_connection()

    def _give_up_connection(self) -> None:
        self.disconnect()
        again = [record for request in self._in_flight for record in request.records]
        self._in_flight.clear()
        # A connection that has brought an answer ended in good order, as when the sidecar was started anew.
        self._put_back(again, self._pause_s(None) if self._back_off_s else 0.0)
        self._back_off_s = self._back_off_s or BACK_OFF_S[0]

    def _is_heard(self) -> None:
        if self._is_away:
            self._is_away = False
            _log.warning("the sidecar at %s answers again", self._address.name)

    def _pause_s(self, retry_after_s: "float | None") -> float:
        """How long to wait before the next attempt: what the sidecar says, or twice as long as the last time."""
        if retry_after_s is not None:
            return min(retry_after_s, RETRY_AFTER_MAX_S)
        least_s, most_s = BACK_OFF_S
        self._back_off_s = min(max(2 * self._back_off_s, least_s), most_s)
        # Several workers do not all come back at the same moment.
        return self._back_off_s * random.uniform(0.5, 1.0)

    def _put_back(self, records: "list[Record]", pause_s: float) -> None:
        """Into their place among those that wait, which is near the front."""
        if records:
            self._backlog.count_retries(len(records))
            self._waiting = deque(sorted([*records, *self._waiting], key=lambda record: record.number))
        self._not_before_s = max(self._not_before_s, time.monotonic() + pause_s)

    def _drop_expired(self, now_s: float) -> None:
        """Of rows that wait, those that have become too old, which are the first."""
        count = 0
        for record in self._waiting:
            if now_s - record.logged_s <= self._max_age_s:
                break
            count += 1
        if count:
            expired = list(islice(self._waiting, count))
            for _ in expired:
                self._waiting.popleft()
            self._backlog.settle(expired, expired=count)

    def _oldest(self) -> "int | None":
        """The number of the first row that is not settled, of those that were fetched."""
        numbers = [request.records[0].number for request in self._in_flight]
        if self._waiting:
            numbers.append(self._waiting[0].number)
        return min(numbers, default=None)


def _errors(body: bytes) -> "list[dict[str, Any]]":
    """The faults that a problem document lists; one of its own where it lists none."""
    try:
        problem = json.loads(body)
        found = problem.get("errors") or [
            {"pointer": "", "reason": problem["type"].rpartition(":")[2], "detail": problem["detail"]}
        ]
        return list(found)
    except (ValueError, KeyError, AttributeError):
        return [{"pointer": "", "reason": "unknown", "detail": body[:200].decode(errors="replace")}]
