"""What Python values become, down to the bits in the log; ids and times; what is refused."""

import struct
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType

import numpy
import pytest
from sidecar import until

from flywheel_client import ids

FIELDS = "flag small large single exact amount name raw day at ref vector doubles".split()


def varint(value):
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def avro_bytes(value):
    return varint(len(value)) + value


def avro(field, value):
    """The Avro form of a field of the contract."""
    if value is None:
        return b"\x00"
    number = {"vector": "<f", "single": "<f", "doubles": "<d", "exact": "<d"}.get(field)
    if field in ("vector", "doubles"):
        return b"\x02" + varint(len(value)) + b"".join(struct.pack(number, item) for item in value) + b"\x00"
    if number:
        return b"\x02" + struct.pack(number, value)
    if field == "flag":
        return b"\x02" + bytes([value])
    if isinstance(value, int):
        return b"\x02" + varint(value)
    return b"\x02" + avro_bytes(value.encode() if isinstance(value, str) else value)


def features_block(**fields):
    return b"\x02" + b"".join(avro(field, fields.get(field)) for field in FIELDS)


def check(sidecar, client, log, given, wanted):
    """Logs `given` and finds the record that `wanted` gives in the log."""
    log(client, **given)
    assert client.flush(120)
    assert client.stats().refused == 0, f"refused: {given}"
    block = features_block(**wanted)
    until(f"the bits of {given}", lambda: block in sidecar.written())


NAN = float("nan")
INF = float("inf")
NOON = datetime(2013, 1, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
NOON_US = 1357041600123456
REF = uuid.UUID("0191D9C5-5D3C-4000-8000-00000000ABCD")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (dict(flag=True, small=-3, large=1 << 62, name="ä \U0001f600 \\ \" null"), None),
        (dict(exact=0.1 + 0.2, single=0.1, doubles=[5e-324, -0.0, 1.7976931348623157e308]), None),
        (dict(exact=NAN, name=None), dict(exact=NAN)),
        (dict(exact=-INF, single=INF, vector=[1.0, NAN], doubles=(INF,)), dict(exact=-INF, single=INF, vector=[1.0, NAN], doubles=[INF])),
        (dict(exact=numpy.float32(0.1), single=numpy.float32(0.1)), dict(exact=float(numpy.float32(0.1)), single=0.1)),
        (dict(exact=numpy.float64(1 / 3), flag=numpy.bool_(False), small=numpy.int8(-5), large=numpy.uint32(7)), dict(exact=1 / 3, flag=False, small=-5, large=7)),
        (dict(exact=numpy.float64("nan"), single=numpy.float16("inf")), dict(exact=NAN, single=INF)),
        (dict(vector=numpy.arange(3, dtype="f4") / 10, doubles=numpy.array([0.1, NAN])), dict(vector=[0.0, 0.1, 0.2], doubles=[0.1, NAN])),
        (dict(amount=Decimal("12.5"), raw=b"\x00\xff\x7f", day=date(2013, 1, 31)), dict(amount=b"\x04\xe2", raw=b"\x00\xff\x7f", day=15736)),
        (dict(amount=Decimal("1E+3"), raw=memoryview(b"ab")), dict(amount=b"\x01\x86\xa0", raw=b"ab")),
        (dict(at=NOON), dict(at=NOON_US)),
        (dict(at=NOON.astimezone(timezone(timedelta(hours=-5)))), dict(at=NOON_US)),
        (dict(at=numpy.datetime64("2013-01-01T12:00:00.123456789")), dict(at=NOON_US)),
        (dict(at=numpy.datetime64("NaT"), day=numpy.datetime64("2013-01-31")), dict(day=15736)),
        (dict(ref=REF, name=numpy.str_("n")), dict(ref=str(REF), name="n")),
    ],
)  # fmt: skip
def test_every_value_keeps_its_bits(sidecar, client, log, given, wanted):
    check(sidecar, client, log, given, given if wanted is None else wanted)


def test_any_mapping_is_a_block(sidecar, client):
    client.log_prediction(
        entity=MappingProxyType({"customer": "c"}),
        features=MappingProxyType({"exact": NAN, "name": None}),
        prediction={"score": 1},
        decision={"action": "none"},
    )
    assert client.flush(120) and client.stats().accepted == 1
    until("the row", lambda: features_block(exact=NAN) in sidecar.written())


def test_a_row_is_what_it_was_when_it_was_logged(absent, client):
    features, vector = {"exact": 1.5}, numpy.array([1.0])
    features["vector"] = vector
    client.log_prediction(entity={"customer": "c"}, features=features, prediction={"score": 0.5})
    features["exact"] = 2.5
    vector[0] = 9
    absent.start()
    assert client.flush(120)
    until("the row", lambda: features_block(exact=1.5, vector=[1.0]) in absent.written())


def test_ids_are_made_of_the_event_time(sidecar, client):
    def served(**envelope):
        return client.log_prediction(entity={}, features={}, prediction={"score": 0.5}, **envelope)

    by_time = served(event_time=NOON)
    assert uuid.UUID(by_time).version == 7 and uuid.UUID(by_time).int >> 80 == NOON_US // 1000
    by_micros = served(event_time=NOON_US)
    brought = served(prediction_id=ids.mint(NOON_US // 1000))
    both = served(prediction_id=uuid.UUID(ids.mint(NOON_US // 1000)), event_time=NOON)
    assert client.flush(120) and client.stats().accepted == 4
    sidecar.await_ids([by_time, by_micros, brought, both])
    # Of the ids made at one moment no two are alike.
    assert len({ids.mint(5) for _ in range(10_000)}) == 10_000
    made = [uuid.UUID(ids.mint(ids.TIME_MS_MAX)) for _ in range(1_000)]
    assert {(id.version, id.variant, id.int >> 80) for id in made} == {(7, uuid.RFC_4122, ids.TIME_MS_MAX)}


def test_everything_of_the_envelope_arrives(sidecar, client):
    parent = ids.mint(NOON_US // 1000)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    client.log_prediction(
        entity={}, features={}, prediction={"score": 0.5}, model_version="seventh", request_id="r-1",
        parent_prediction_id=uuid.UUID(parent), variant="blue", exposure="shadow", rank=3, latency_us=900,
        status="fallback", traceparent=f"00-{trace}-00f067aa0ba902b7-01",
    )  # fmt: skip
    client.log_prediction(
        entity={}, features={}, prediction={"score": 0.5}, traceparent="no such thing\r\nevil: header", request_id="r-2"
    )
    assert client.flush(120) and client.stats().accepted == 2
    words = ["seventh", "r-1", "r-2", parent, "blue", "shadow", "fallback", trace]
    until("the envelope", lambda: all(word.encode() in sidecar.written() for word in words))


def test_rows_of_both_kinds_and_of_many_traces_go_each_its_way(sidecar, client):
    traces = [f"{number:032x}" for number in range(1, 201)]
    for trace in traces:
        id = client.log_prediction(
            entity={}, features={}, prediction={"score": 0.5}, traceparent=f"00-{trace}-00f067aa0ba902b7-01"
        )
        client.log_outcome(id, {"good": True})
    assert client.flush(120) and client.stats().accepted == 400
    assert sidecar.metric("flywheel_accepted_rows_total", kind="outcomes") == 200
    until("the traces", lambda: all(trace.encode() in sidecar.written() for trace in traces))


def test_what_the_sidecar_refuses_comes_back_once_with_its_faults(sidecar, make_client, log):
    refused = []
    client = make_client(on_refused=refused.append)
    bad = log(client, score=7, small="text")
    assert client.flush(120)
    (refusal,) = refused
    assert (refusal.kind, refusal.id, refusal.status) == ("predictions", bad, 422)
    assert {error["pointer"] for error in refusal.errors} == {"/prediction/score", "/features/small"}
    assert b'"small":"text"' in refusal.body and "text" not in repr(refusal)
    # Among others of one request it is refused alone.
    sent = [log(client, score=7 if number == 50 else 0.5) for number in range(100)]
    assert client.flush(120)
    assert [refusal.id for refusal in refused[1:]] == [sent[50]]
    stats = client.stats()
    assert (stats.accepted, stats.refused, stats.retried, stats.queued) == (99, 2, 0, 0)
    sidecar.await_ids(sent[:50] + sent[51:])


@pytest.mark.parametrize(
    ("features", "pointer"),
    [
        ({"exact": object()}, "/features/exact"),
        ({"exact": 1 + 2j}, "/features/exact"),
        ({"at": datetime(2013, 1, 1)}, "/features/at"),
        ({"large": 1 << 64}, "/features/large"),
        ({"name": "\ud800"}, "/features/name"),
        ({"amount": Decimal("NaN")}, "/features/amount"),
        ({"doubles": [NAN, {1, 2}]}, "/features/doubles"),
        ({"a/b~c": {1}}, "/features/a~1b~0c"),
    ],
)
def test_what_has_no_json_form_is_refused_and_raises_nothing(sidecar, make_client, log, features, pointer):
    refused = []
    client = make_client(on_refused=refused.append)
    bad = log(client, **features)
    good = log(client)
    assert client.flush(120)
    assert [(refusal.id, refusal.status) for refusal in refused] == [(bad, 0)]
    assert [error["pointer"] for error in refused[0].errors] == [pointer]
    assert (client.stats().accepted, client.stats().refused) == (1, 1)
    sidecar.await_ids([good])


def test_wrong_ids_and_times_are_refused_and_raise_nothing(sidecar, make_client):
    refused = []
    client = make_client(on_refused=refused.append)
    for envelope in [{"event_time": "noon"}, {"event_time": -1}, {"event_time": 1 << 70}, {"prediction_id": 5}]:
        client.log_prediction(entity={}, features={}, prediction={"score": 0.5}, **envelope)
    client.log_outcome("no id", {"good": True})
    client.log_outcome(ids.mint(5), {"good": True}, event_time=datetime(2013, 1, 1))
    assert client.flush(120)
    assert sorted(refusal.status for refusal in refused) == [0, 0, 0, 0, 0, 422]
    assert client.stats().refused == 6
    with pytest.raises(TypeError):
        client.log_prediction(features={})


def test_outcomes_and_retracts_are_stated(sidecar, client, log):
    prediction_id = log(client)
    events = [
        client.log_outcome(prediction_id, {"good": numpy.bool_(True)}, event_time=NOON, source="desk"),
        client.log_outcome(prediction_id, {"refunds": 5}, outcome_id="o-1", revision=2),
        client.retract_outcome(prediction_id, ["refunds"], outcome_id="o-1", revision=3),
        client.retract_outcome(prediction_id),
    ]
    again = client.log_outcome(prediction_id, {"good": True}, event_id=events[0])
    assert client.flush(120)
    assert again == events[0]
    assert (client.stats().accepted, client.stats().refused) == (6, 0)
    assert sidecar.metric("flywheel_accepted_rows_total", kind="outcomes") == 5
    until("the statements", lambda: all(event.encode() in sidecar.written("outcomes") for event in events))
    assert varint(NOON_US) in sidecar.written("outcomes") and b"desk" in sidecar.written("outcomes")
