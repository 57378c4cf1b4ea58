"""Bounds, and a sidecar that is away, slow, full, killed or choosy: nothing is lost that there was room for, and a row that
is sent again has its id."""

import signal

import pytest
from proxy import Proxy
from sidecar import until

from flywheel_client import Client, sender

# A full spool, and then room: the log takes nothing, until it is another one.
NO_BROKER = "kafka://127.0.0.1:1"


def total(stats):
    return stats.accepted + stats.refused + sum(stats.dropped.values()) + stats.queued


def test_a_full_queue_drops_the_newest_and_counts_them(absent, make_client, log):
    client = make_client(max_records=100)
    ids = [log(client) for _ in range(150)]
    stats = client.stats()
    assert (stats.queued, stats.dropped["queue_full"], total(stats)) == (100, 50, 150)
    absent.start()
    assert client.flush(120)
    absent.await_ids(ids[:100])
    # There is room again.
    more = log(client)
    assert client.flush(120) and client.stats().accepted == 101
    absent.await_ids([*ids[:100], more])
    assert client.stats().queued_bytes == 0


def test_the_queue_is_bounded_by_bytes_as_well(absent, make_client, log):
    client = make_client(max_bytes=100_000)
    for _ in range(50):
        log(client, name="x" * 10_000)
    stats = client.stats()
    assert 90_000 < stats.queued_bytes <= 100_000
    assert stats.queued == 9 and stats.dropped["queue_full"] == 41


def test_rows_that_are_too_old_are_dropped_and_the_others_kept(absent, make_client, log):
    client = make_client(max_age_s=1)
    log(client), log(client)
    until("their end", lambda: client.stats().dropped["expired"] == 2)
    assert client.stats().queued == 0 and client.flush(120)
    absent.start()
    kept = make_client()
    ids = [log(kept)]
    assert kept.flush(120)
    absent.await_ids(ids)


def test_what_waits_for_the_sidecar_is_sent_once_it_is_there(absent, client, log):
    ids = [log(client) for _ in range(1_000)]
    assert not client.flush(0.2)
    absent.start()
    assert client.flush(120)
    assert set(absent.await_ids(ids).values()) == {1}
    stats = client.stats()
    assert (stats.accepted, total(stats)) == (1_000, 1_000)


def test_over_tcp(sidecar, make_client, log):
    client = make_client(sidecar.http_url)
    ids = [log(client) for _ in range(2_000)]
    assert client.flush(120)
    assert set(sidecar.await_ids(ids).values()) == {1}
    # Many rows at once are few requests.
    assert sidecar.metric("flywheel_requests_total", route="predictions") < 500
    assert client.stats().retried == 0


def test_a_killed_sidecar_costs_nothing_and_doubles_no_id(sidecar, client, log):
    ids = []
    for _ in range(3):
        ids += [log(client) for _ in range(500)]
        until("some of them", lambda: client.stats().accepted > len(ids) - 400)
        ids += [log(client) for _ in range(500)]
        sidecar.kill()
        ids += [log(client) for _ in range(100)]
        sidecar.start()
    assert client.flush(120)
    # Copies there may be, of the client and of the forwarder; `await_ids` sees that there is no id but these.
    sidecar.await_ids(ids)
    assert client.stats().accepted == len(ids) == total(client.stats())


def test_a_sidecar_that_is_stopped_in_good_order_and_started_again(sidecar, client, log):
    ids = [log(client) for _ in range(100)]
    assert client.flush(120)
    sidecar.stop()
    sidecar.start()
    ids += [log(client) for _ in range(100)]
    assert client.flush(120)
    assert set(sidecar.await_ids(ids).values()) == {1}


def test_an_idle_connection_that_the_sidecar_closes_is_made_anew(absent, client, log):
    absent.configure(limits={"header_timeout_ms": 200})
    absent.start()
    ids = []
    for _ in range(3):
        ids.append(log(client))
        assert client.flush(120)
        connection = client._sender._connection
        until("the end of the connection", lambda: not connection.is_alive())
    assert set(absent.await_ids(ids).values()) == {1}
    assert client.stats().retried == 0


def test_a_full_spool_is_tried_again_until_it_has_room(absent, client, log):
    absent.configure(log=NO_BROKER, spool={"max_bytes": 20 << 20})
    absent.start()
    ids = [log(client, name="x" * 20_000) for _ in range(1_500)]
    until("a 503", lambda: client.stats().retried > 0)
    assert client.stats().queued > 0
    # The sidecar says to come back after a whole second, and is not asked before.
    asked = absent.metric("flywheel_requests_total", status="503") + absent.metric("flywheel_requests_total", status="207")
    assert asked < 50
    absent.stop()
    absent.configure(spool={"max_bytes": 256 << 20})
    absent.start()
    assert client.flush(120)
    absent.await_ids(ids)
    stats = client.stats()
    assert (stats.accepted, sum(stats.dropped.values())) == (1_500, 0)


def test_a_sidecar_that_stands_still_delays_only_the_sending(sidecar, client, log, monkeypatch):
    monkeypatch.setattr(sender, "ANSWER_WITHIN_S", 0.3)
    ids = [log(client)]
    assert client.flush(120)
    sidecar.signal(signal.SIGSTOP)
    ids += [log(client) for _ in range(500)]
    until("another attempt", lambda: client.stats().retried > 0)
    assert client.stats().accepted == 1
    sidecar.signal(signal.SIGCONT)
    monkeypatch.undo()
    assert client.flush(120)
    sidecar.await_ids(ids)
    assert client.stats().accepted == 501


@pytest.mark.parametrize("answer_bytes", [1, 150, 1_000])
def test_rows_whose_answer_is_lost_are_sent_again_under_the_same_id(sidecar, make_client, log, answer_bytes):
    proxy = Proxy(sidecar, answer_bytes=answer_bytes, cuts=5)
    client = make_client(proxy.url)
    ids = []
    while proxy.connections < 6:
        ids += [log(client) for _ in range(20)]
        assert client.flush(120)
    copies = sidecar.await_ids(ids)
    assert max(copies.values()) > 1, "no answer was lost"
    assert client.stats().accepted == len(ids) and client.stats().retried > 0
    proxy.close()


def test_a_slow_connection_loses_nothing(sidecar, make_client, log):
    proxy = Proxy(sidecar, piece=7)
    client = make_client(proxy.url)
    ids = [log(client, name="x" * 50) for _ in range(300)]
    assert client.flush(120)
    assert set(sidecar.await_ids(ids).values()) == {1}
    proxy.close()


def test_smaller_limits_of_the_sidecar_are_kept(absent, make_client, log):
    absent.configure(limits={"batch_rows": 7, "body_bytes": 20_000})
    absent.start()
    refused = []
    client = make_client(on_refused=refused.append)
    ids = [log(client, name="x" * 3_000) for _ in range(200)]
    large = log(client, name="x" * 30_000)
    ids += [log(client) for _ in range(200)]
    assert client.flush(120)
    assert [(refusal.id, refusal.status) for refusal in refused] == [(large, 413)]
    assert set(absent.await_ids(ids).values()) == {1}


def test_a_model_that_the_sidecar_does_not_know(sidecar, log):
    refused = []
    with Client(sidecar.url, "another", model_version="1", on_refused=refused.append) as client:
        for _ in range(3):
            log(client)
        assert client.flush(120)
    assert [(refusal.status, refusal.errors[0]["reason"]) for refusal in refused] == [(404, "unknown_model")] * 3


def test_a_callback_that_raises_costs_nothing_else(sidecar, make_client, log):
    def raise_(refusal):
        raise SystemExit if len(ids) % 2 else ValueError("of the user")

    ids = []
    client = make_client(on_refused=raise_)
    for _ in range(4):
        log(client, score=5)
        assert client.flush(120)
        ids.append(log(client))
        assert client.flush(120)
    sidecar.await_ids(ids)
    stats = client.stats()
    assert (stats.callback_errors, stats.refused, stats.accepted) == (4, 4, 4)


def test_a_callback_may_log_and_does_not_wait_for_itself(sidecar, make_client, log):
    answers = []

    def again(refusal):
        answers.append((client.flush(), log(client)))

    client = make_client(on_refused=again)
    log(client, score=5)
    until("both", lambda: client.stats().accepted == 1)
    assert answers[0][0] is False
    sidecar.await_ids([answers[0][1]])


def test_after_close_rows_are_counted_and_nothing_raises(sidecar, client, log):
    ids = [log(client) for _ in range(10)]
    assert client.close(120)
    late = log(client)
    assert late and client.stats().dropped["closed"] == 1
    assert client.close() is True
    sidecar.await_ids(ids)


def test_close_counts_what_it_could_not_send(absent, client, log):
    for _ in range(10):
        log(client)
    assert client.close(0.2) is False
    stats = client.stats()
    assert (stats.dropped["closed"], stats.queued, total(stats)) == (10, 0, 10)
