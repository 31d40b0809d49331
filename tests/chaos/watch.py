"""The loops of a running stack, watched from outside: a trigger notes every change of their rows, so none is missed."""

from types import TracebackType
from typing import Any

import psycopg2
import redis

from actors.queues import Queues
from ctrip.database.loops import LEASE
from tests.stack import RunningStack
from tests.waiting import wait_until

WATCH = """
DROP SCHEMA IF EXISTS watching CASCADE;
CREATE SCHEMA watching;
CREATE TABLE watching.changes (
    id bigserial PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    name text NOT NULL,
    fence_before bigint NOT NULL,
    fence bigint NOT NULL,
    lease_before timestamptz,
    is_leased boolean NOT NULL,
    has_ticked boolean NOT NULL
);
CREATE FUNCTION watching.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO watching.changes (name, fence_before, fence, lease_before, is_leased, has_ticked) VALUES
        (NEW.name, OLD.fence, NEW.fence, OLD.lease_until, NEW.lease_until IS NOT NULL,
         NEW.last_tick_at IS DISTINCT FROM OLD.last_tick_at);
    RETURN NULL;
END $$;
CREATE TRIGGER watching AFTER UPDATE ON loops FOR EACH ROW EXECUTE FUNCTION watching.note();
"""
OVERLAPS = "SELECT name, fence, at FROM watching.changes WHERE fence > fence_before AND lease_before > at"
_GAPS = """
SELECT name, count(*), extract(epoch FROM max(gap))::float8 FROM (
    SELECT name, at - lag(at) OVER (PARTITION BY name ORDER BY id) AS gap FROM watching.changes WHERE has_ticked
) AS gaps GROUP BY name HAVING count(gap) > 0 ORDER BY name
"""
_SILENT = "SELECT name FROM loops WHERE enabled AND (last_tick_at IS NULL OR last_tick_at <= %s)"


class LoopWatch:
    """Use it as a context manager around a story."""

    def __init__(self, stack: RunningStack) -> None:
        self._stack = stack
        self._queues = Queues(redis.Redis.from_url(stack["redis_url"]), namespace="ctrip", heartbeat_timeout_ms=30_000)

    def __enter__(self) -> "LoopWatch":
        self._overtaken_before = self._told_of_overtaken()
        self._database = psycopg2.connect(self._stack["database_url"].replace("+psycopg2", ""))
        self._database.autocommit = True
        self.ask(WATCH)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.ask("DROP SCHEMA watching CASCADE")
        self._database.close()

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the stack's database answers."""
        with self._database.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def check(self) -> None:
        """Every loop lives, no two runs of one were at work at once, and its duplicates are gone."""
        assert self.ask(OVERLAPS) == [], "a loop was claimed while the run before still had its lease"
        # A run that goes on after its lease says so: it finds itself overtaken at the next thing that it would store.
        assert self._told_of_overtaken() == self._overtaken_before, "a run outlived its lease"
        (now,) = self.ask("SELECT clock_timestamp()")[0]
        alive_within_s = LEASE.total_seconds() + 10
        wait_until(lambda: self.ask(_SILENT, now) == [], within_s=alive_within_s, what="every loop ticks")
        wait_until(self._has_no_duplicates, within_s=45, what="one message for each loop is left")
        for name, ticks, gap_s in self.ask(_GAPS):
            print(f"{name}: {ticks} ticks, longest gap {gap_s:.1f} s")  # noqa: T201

    def _has_no_duplicates(self) -> bool:
        depths = self._queues.depths(["listener", "sweeper"])
        (loops,) = self.ask("SELECT count(*) FROM loops")[0]
        return sum(depth.ready + depth.in_flight + depth.delayed for depth in depths) <= loops

    def _told_of_overtaken(self) -> int:
        return self._stack.log.read_text().count("loop_fenced_out")
