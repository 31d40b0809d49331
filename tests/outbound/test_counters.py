"""Counters on a real Valkey: shared while it is there, each process's own while it is away."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis

from ctrip.local.redis import embedded_redis
from ctrip.outbound import counters as module
from ctrip.outbound.counters import Counters
from tests.conftest import running
from tests.stack import PORTS

pytestmark = pytest.mark.infra
NOWHERE = "redis://127.0.0.1:1/0"


def test_all_who_count_under_one_name_count_together(redis_client: Redis, redis_url: str) -> None:
    one, other = Counters(redis_url), Counters(redis_url)
    assert [each.count("a", kept_s=60) for each in (one, other, one)] == [1, 2, 3]
    assert one.count("b", kept_s=60) == 1
    one.close()
    other.close()


def test_what_one_has_taken_the_others_do_not_tell(redis_client: Redis, redis_url: str) -> None:
    one, other = Counters(redis_url), Counters(redis_url)
    told = [each.count("a", kept_s=60, at_once=3) for each in (one, other, one, one, other, one)]
    assert told == [1, 4, 2, 3, 5, 7]
    one.close()
    other.close()


def test_threads_of_one_process_tell_each_number_once(redis_client: Redis, redis_url: str) -> None:
    counters = Counters(redis_url)
    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(lambda _: counters.count("a", kept_s=60, at_once=7), range(700)))
    assert len(set(told)) == 700
    assert max(told) <= 700 + 8 * 7, "each of them may have taken some"
    counters.close()


def test_who_is_heard_of_keeps_what_was_taken_for_him_however_many_others_come(
    redis_client: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_NAMES", 4)
    counters = Counters(redis_url)
    told = []
    for number in range(12):
        told.append(counters.count("a", kept_s=60, at_once=3))
        counters.count(f"other {number}", kept_s=60, at_once=3)
    assert told == list(range(1, 13))
    assert len(counters._taken) <= 4
    counters.close()


def test_a_count_is_forgotten(redis_client: Redis, redis_url: str) -> None:
    counters = Counters(redis_url)
    counters.count("a", kept_s=60)
    (name,) = redis_client.scan_iter("*")
    assert 0 < redis_client.ttl(name) <= 60
    counters.close()


def test_while_redis_is_away_each_counts_for_itself_and_it_is_seldom_asked() -> None:
    one, other = Counters(NOWHERE), Counters(NOWHERE)
    began = time.monotonic()
    assert [one.count("a", kept_s=60) for _ in range(1000)] == list(range(1, 1001))
    assert other.count("a", kept_s=60) == 1
    assert time.monotonic() - began < module._AWAY_S, "asked once"
    one.close()


def test_a_redis_that_comes_back_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AWAY_S", 0.0)
    program, url = embedded_redis(tmp_path, port=26_479 + PORTS, durable=False)
    counters = Counters(url)
    counters.count("a", kept_s=60)
    with running(program, tmp_path), Redis.from_url(url) as client:
        assert counters.count("a", kept_s=60) == 1
        assert len(list(client.scan_iter("ctrip:counters*"))) == 1
    assert counters.count("a", kept_s=60) == 2, "its own count goes on"
    counters.close()
