"""The client: what a model server calls."""

import asyncio
import atexit
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

from . import encode, ids
from .backlog import Backlog
from .connection import Address
from .record import Record, Refusal, Stats
from .sender import Sender

Entity = TypeVar("Entity", bound=Mapping[str, object])
Features = TypeVar("Features", bound=Mapping[str, object])
Prediction = TypeVar("Prediction", bound=Mapping[str, object])
Decision = TypeVar("Decision", bound=Mapping[str, object])
Context = TypeVar("Context", bound=Mapping[str, object])
Labels = TypeVar("Labels", bound=Mapping[str, object])

# How long the thread may take to end once it is told to: it is at most in the middle of connecting.
_END_WITHIN_S = 3.0

_MODEL = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}[!-~]{0,73}")


class Client(Generic[Entity, Features, Prediction, Decision, Context, Labels]):
    """Logs predictions and outcomes of one model to a sidecar.

    `log_prediction` and `log_outcome` write the row as JSON, put it into a bounded queue and return its id: no system
    call but for random numbers, no wait for the network or for another thread's work. They keep nothing of what they are
    given, so the caller may go on using its dicts and arrays. A thread in the background sends the queue.

    - A full queue drops the newest row and counts it. Nothing is logged twice: a row that is sent again has the same id.
    - What the sidecar refuses, and what has no JSON form, is counted and handed to `on_refused`, from the background
      thread. A callback that raises is counted; one that is slow holds up the sending.
    - Whatever the values are, logging raises nothing. A wrong call does: a missing or unknown argument.
    - For threads, asyncio and forked workers alike. A forked child starts with an empty queue, counts of its own and a
      connection of its own; what was queued is sent by the parent, once.
    - At the end of the interpreter what is queued is sent, for at most `exit_timeout_s`. A process that ends by
      `os._exit`, as those of `multiprocessing` do, calls `close` itself; one that is killed loses what was queued, which
      is the last few milliseconds while the sidecar answers.

    `url` is `unix:PATH` or `http://HOST:PORT`. `max_records` and `max_bytes` bound what is not settled, in rows and in
    bytes of memory: the defaults hold some ten seconds of 1,000 rows/s of 100 features. `max_age_s` bounds how long a row
    is tried.
    """

    MODEL: "ClassVar[str | None]" = None
    """The model of a subclass that was made by `flywheel_client.types`."""

    def __init__(
        self,
        url: str,
        model: "str | None" = None,
        *,
        model_version: "str | None" = None,
        on_refused: "Callable[[Refusal], object] | None" = None,
        max_records: int = 10_000,
        max_bytes: int = 64 << 20,
        max_age_s: float = 300.0,
        exit_timeout_s: float = 5.0,
    ) -> None:
        model = model or self.MODEL
        if model is None or not _MODEL.fullmatch(model):
            raise ValueError(f"{model!r} is no name of a model")
        self._address = Address.parse(url)
        self._model = model
        self._model_version = model_version
        self._on_refused = on_refused
        self._max_age_s = max_age_s
        self._exit_timeout_s = exit_timeout_s
        self._backlog = Backlog(max_records, max_bytes)
        self._start_anew()
        _clients.add(self)
        atexit.register(self.close, exit_timeout_s)

    def _start_anew(self) -> None:
        self._sender = Sender(self._backlog, self._address, self._model, self._max_age_s, self._on_refused)
        self._thread: "threading.Thread | None" = None
        self._starting = threading.Lock()

    def _forked(self) -> None:
        """In the child: nothing of the parent's is touched but this process's copies of it."""
        self._sender.disconnect()
        self._backlog.reset()
        self._start_anew()

    def log_prediction(
        self,
        *,
        entity: Entity,
        features: Features,
        prediction: Prediction,
        decision: "Decision | None" = None,
        context: "Context | None" = None,
        model_version: "str | None" = None,
        prediction_id: "str | UUID | None" = None,
        event_time: "datetime | int | None" = None,
        request_id: "str | None" = None,
        parent_prediction_id: "str | UUID | None" = None,
        variant: "str | None" = None,
        exposure: "str | None" = None,
        rank: "int | None" = None,
        latency_us: "int | None" = None,
        status: "str | None" = None,
        traceparent: "str | None" = None,
    ) -> str:
        """Logs what was served and returns its prediction_id.

        `event_time`, when the prediction was made, is a datetime with a time zone or integer microseconds since the
        epoch, by default now; it is cut to the millisecond, of which the id is made. A caller that brings an id makes it
        so as well (a contract with `ids: caller` takes any text). `traceparent` is the header of W3C trace context.
        """
        faults = None
        try:
            if prediction_id is None or event_time is not None:
                time_ms = (ids.now_us() if event_time is None else ids.micros(event_time)) // 1000
                if not 0 <= time_ms <= ids.TIME_MS_MAX:
                    raise ValueError(f"event_time {time_ms} ms lies outside of what an id can hold")
                id = ids.mint(time_ms) if prediction_id is None else ids.text(prediction_id)
                envelope: "dict[str, Any]" = {"prediction_id": id, "event_time": time_ms * 1000}
            else:
                id = ids.text(prediction_id)
                envelope = {"prediction_id": id}
        except Exception as error:
            # It is told as a refusal, of which the caller needs an id.
            id = ids.mint(ids.now_us() // 1000)
            envelope = {}
            name = "/event_time" if event_time is not None else "/prediction_id"
            faults = [{"pointer": name, "reason": "not_serialisable", "detail": str(error)}]
        # In the order in which the sidecar expects them.
        if request_id is not None:
            envelope["request_id"] = request_id
        if parent_prediction_id is not None:
            envelope["parent_prediction_id"] = parent_prediction_id
        version = model_version if model_version is not None else self._model_version
        if version is not None:
            envelope["model_version"] = version
        if variant is not None:
            envelope["variant"] = variant
        if exposure is not None:
            envelope["exposure"] = exposure
        if rank is not None:
            envelope["rank"] = rank
        if latency_us is not None:
            envelope["latency_us"] = latency_us
        if status is not None:
            envelope["status"] = status
        envelope["entity"] = entity
        envelope["features"] = features
        envelope["prediction"] = prediction
        if decision is not None:
            envelope["decision"] = decision
        if context is not None:
            envelope["context"] = context
        self._log("predictions", id, envelope, traceparent, faults)
        return id

    def log_outcome(
        self,
        prediction_id: "str | UUID",
        labels: Labels,
        *,
        event_time: "datetime | int | None" = None,
        outcome_id: "str | None" = None,
        revision: "int | None" = None,
        source: "str | None" = None,
        event_id: "str | UUID | None" = None,
        traceparent: "str | None" = None,
    ) -> str:
        """Logs what became of a prediction and returns the event_id of the statement.

        `event_time`, when it happened, is by default now. Labels that are counted or summed need an `outcome_id`.
        """
        return self._state(
            prediction_id, dict(labels), None, event_time, outcome_id, revision, source, event_id, traceparent
        )

    def retract_outcome(
        self,
        prediction_id: "str | UUID",
        labels: "Iterable[str] | None" = None,
        *,
        event_time: "datetime | int | None" = None,
        outcome_id: "str | None" = None,
        revision: "int | None" = None,
        source: "str | None" = None,
        event_id: "str | UUID | None" = None,
        traceparent: "str | None" = None,
    ) -> str:
        """Takes back the named labels of a prediction, or all of them, and returns the event_id of the statement."""
        names = None if labels is None else list(labels)
        return self._state(
            prediction_id, names, "retract", event_time, outcome_id, revision, source, event_id, traceparent
        )

    def _state(
        self,
        prediction_id: "str | UUID",
        labels: "dict[str, object] | list[str] | None",
        op: "str | None",
        event_time: "datetime | int | None",
        outcome_id: "str | None",
        revision: "int | None",
        source: "str | None",
        event_id: "str | UUID | None",
        traceparent: "str | None",
    ) -> str:
        now_us = ids.now_us()
        faults = None
        id = ids.mint(now_us // 1000)
        # Both times are said, since by default they are those of receipt, and each copy of a row has another one.
        envelope: "dict[str, Any]" = {"prediction_id": prediction_id}
        if labels is not None:
            envelope["labels"] = labels
        try:
            id = id if event_id is None else ids.text(event_id)
            envelope["event_time"] = now_us if event_time is None else ids.micros(event_time)
        except Exception as error:
            name = "/event_time" if event_time is not None else "/event_id"
            faults = [{"pointer": name, "reason": "not_serialisable", "detail": str(error)}]
        if outcome_id is not None:
            envelope["outcome_id"] = outcome_id
        if revision is not None:
            envelope["revision"] = revision
        if op is not None:
            envelope["op"] = op
        envelope["op_time"] = now_us
        envelope["event_id"] = id
        if source is not None:
            envelope["source"] = source
        self._log("outcomes", id, envelope, traceparent, faults)
        return id

    def _log(
        self,
        kind: str,
        id: str,
        envelope: "dict[str, Any]",
        traceparent: "str | None",
        faults: "list[dict[str, str]] | None",
    ) -> None:
        body = b""
        if faults is None:
            try:
                body = encode.encode(envelope)
            except Exception as error:
                faults = encode.faults(envelope) or [
                    {"pointer": "", "reason": "not_serialisable", "detail": str(error)}
                ]
        if traceparent is not None and not (isinstance(traceparent, str) and _TRACEPARENT.fullmatch(traceparent)):
            # As the sidecar does: a trace that cannot be read is left away, the row is not.
            traceparent = None
        self._backlog.put(Record(kind, id, body, traceparent, time.monotonic(), faults))
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        """Starts the thread at the first row, so that a process that forks before has none."""
        with self._starting:
            if self._thread is not None or self._backlog.closing:
                return
            self._thread = threading.Thread(target=self._sender.run, name=f"flywheel-{self._model}", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                # No more threads at present, or the interpreter is ending; the next row tries again.
                self._thread = None

    def flush(self, timeout: "float | None" = None) -> bool:
        """Waits until every row logged so far is settled; False where the time, in seconds, was over before."""
        if self._thread is threading.current_thread():
            return False
        settled = threading.Event()
        notify = settled.set
        self._backlog.when_settled(notify)
        try:
            return settled.wait(timeout)
        finally:
            self._backlog.forget(notify)

    async def drain(self, timeout: "float | None" = None) -> bool:
        """`flush` for asyncio: the loop goes on meanwhile."""
        loop = asyncio.get_running_loop()
        settled: "asyncio.Future[None]" = loop.create_future()

        def settle() -> None:
            if not settled.done():
                settled.set_result(None)

        def notify() -> None:
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:
                pass  # the loop has ended, and with it whoever waited

        self._backlog.when_settled(notify)
        try:
            await asyncio.wait_for(settled, timeout)
            return True
        except asyncio.TimeoutError:
            return False
        finally:
            self._backlog.forget(notify)

    def stats(self) -> Stats:
        """Counts of this process, all of one moment."""
        return self._backlog.stats()

    def close(self, timeout: float = 5.0) -> bool:
        """Takes no more rows, sends those that are queued for at most `timeout` seconds and ends the thread; whether all
        were settled. What is left is counted as dropped. Rows logged afterwards are dropped and counted as well."""
        atexit.unregister(self.close)
        self._backlog.close()
        thread = self._thread
        if thread is not None and thread.is_alive():
            self.flush(timeout)
        settled = self._backlog.stats().queued == 0
        self._backlog.stop()
        if thread is None:
            self._backlog.abandon()
        elif thread is not threading.current_thread():
            thread.join(_END_WITHIN_S)
        return settled

    def __enter__(self) -> "Client[Entity, Features, Prediction, Decision, Context, Labels]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close(self._exit_timeout_s)


# For those that fork; weak, so that a client that nobody uses any more can go.
_clients: "weakref.WeakSet[Client[Any, Any, Any, Any, Any, Any]]" = weakref.WeakSet()


def _in_child() -> None:
    for client in list(_clients):
        client._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
