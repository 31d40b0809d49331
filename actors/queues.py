"""Dramatiq's keys in Redis: the only code that knows them, and the keys that we keep beside them.

    NS:q                      list of the ids of ready messages       NS:q.msgs     hash id -> JSON, ready and in flight
    NS:q.DQ, NS:q.DQ.msgs     the same for delayed messages           NS:q.XQ       zset of dead ids by time of death
    NS:q.XQ.msgs              hash id -> JSON of the dead             NS:__heartbeats__   zset broker id -> last seen
    NS:__acks__.BROKER.q      set of the ids that a broker has taken and not acknowledged

    ours: NS:__workers__.q    zset worker id -> last seen     NS:__completed__.q.MINUTE     messages done in it

Each id is a `redis_message_id`: a message gets a new one whenever it is enqueued. Times are milliseconds.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

WORKER_SEEN_WITHIN_MS = 15_000
SCANNED = 1_000
"""The most messages of a queue and state that are read for the oldest one: reading more would hold Redis up."""

_SNAPSHOT = """
local ns, this_minute, worker_since, dead_since = KEYS[1], tonumber(ARGV[1]), ARGV[2], ARGV[3]
local scanned = tonumber(ARGV[4])
local function since(message)
  local read, content = pcall(cjson.decode, message)
  if not read or type(content) ~= "table" then return nil, nil end
  local options, sent = content.options, content.message_timestamp
  if type(sent) ~= "number" then sent = nil end
  if type(options) ~= "table" then return sent, nil, sent end
  local due = type(options.due_at) == "number" and options.due_at or sent
  return sent, type(options.eta) == "number" and options.eta or nil, due
end
local function least(a, b) return b and (a < 0 or b < a) and b or a end
local known = redis.call("zrange", ns .. ":__heartbeats__", 0, -1)
local gone = redis.call("zrangebyscore", ns .. ":__heartbeats__", "-inf", dead_since)
local found = {}
for i = 5, #ARGV do
  local name = ARGV[i]
  local q = ns .. ":" .. name
  local head = redis.call("lindex", q, 0)
  local oldest = head and redis.call("hget", q .. ".msgs", head) or false
  local delayed = redis.call("hlen", q .. ".DQ.msgs")
  local due, first_delayed = -1, -1
  local sample = delayed > 0 and redis.call("hrandfield", q .. ".DQ.msgs", scanned, "withvalues") or {}
  for place = 2, #sample, 2 do
    local sent, eta = since(sample[place])
    due, first_delayed = least(due, eta), least(first_delayed, sent)
  end
  local first_taken = -1
  for _, worker in ipairs(known) do
    local ids = redis.call("srandmember", ns .. ":__acks__." .. worker .. "." .. name, scanned)
    for _, message in ipairs(#ids > 0 and redis.call("hmget", q .. ".msgs", unpack(ids)) or {}) do
      local _, _, was_due = since(message)
      first_taken = least(first_taken, was_due)
    end
  end
  local completed = 0
  for minute = this_minute - 59, this_minute do
    completed = completed + tonumber(redis.call("get", ns .. ":__completed__." .. name .. "." .. minute) or 0)
  end
  local stranded = 0
  for _, worker in ipairs(gone) do
    local acks = ns .. ":__acks__." .. worker .. "." .. name
    stranded = stranded + redis.call("scard", acks) + redis.call("scard", acks .. ".DQ")
  end
  found[#found + 1] = {
    redis.call("llen", q), redis.call("hlen", q .. ".msgs"), delayed, redis.call("zcard", q .. ".XQ"),
    oldest, string.format("%.0f", due), stranded,
    redis.call("zcount", ns .. ":__workers__." .. name, worker_since, "+inf"), completed,
    string.format("%.0f", first_taken), string.format("%.0f", first_delayed),
  }
end
return found
"""


@dataclass(frozen=True)
class Depth:
    """One queue in Redis at one moment.

    `dead` counts the dead messages that were not copied to Postgres yet, `stranded` those that a worker which is gone
    had taken. `overdue_s` is how long ago the first delayed message should have run: 0 where none is late. The ages of
    messages in flight count from when they were due, those of delayed ones from when they were sent. Of more than
    SCANNED messages a random sample of so many is looked at.
    """

    queue: str
    ready: int
    in_flight: int
    delayed: int
    dead: int
    stranded: int
    workers: int
    completed_1h: int
    oldest_ready_age_s: float | None
    overdue_s: float
    oldest_in_flight_age_s: float
    oldest_delayed_age_s: float


@dataclass(frozen=True)
class Server:
    """Redis itself. `memory_limit_bytes` is its maxmemory, or the machine's memory where it has none."""

    memory_bytes: int
    memory_limit_bytes: int
    connections: int


@dataclass(frozen=True)
class DeadMessage:
    """A message that Dramatiq gave up, as its bytes stand in Redis."""

    queue: str
    redis_id: str
    content: bytes
    died_at_ms: int


class Queues:
    """What one Redis holds of our queues. Every method may raise redis.RedisError."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        namespace: str,
        heartbeat_timeout_ms: int,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self.client = client
        self._ns = namespace
        self._heartbeat_timeout_ms = heartbeat_timeout_ms
        self._now_ms = now_ms
        self._snapshot = client.register_script(_SNAPSHOT)

    def depths(self, queues: Sequence[str]) -> list[Depth]:
        """Look at these queues, all at the same moment."""
        now_ms = self._now_ms()
        limits = [now_ms - WORKER_SEEN_WITHIN_MS, now_ms - self._heartbeat_timeout_ms, SCANNED]
        found = self._snapshot(keys=[self._ns], args=[now_ms // 60_000, *limits, *queues])
        return [_depth(queue, row, now_ms=now_ms) for queue, row in zip(queues, found, strict=True)]

    def ready(self, queue: str) -> int:
        """Count the messages that wait for a worker."""
        return int(self.client.llen(f"{self._ns}:{queue}"))

    def sign_in(self, queue: str, worker: str, *, completed: int) -> None:
        """Note that this worker lives, and how many messages it has completed since it last said so."""
        now_ms = self._now_ms()
        minute = f"{self._ns}:__completed__.{queue}.{now_ms // 60_000}"
        with self.client.pipeline(transaction=False) as pipe:
            pipe.zadd(f"{self._ns}:__workers__.{queue}", {worker: now_ms})
            pipe.zremrangebyscore(f"{self._ns}:__workers__.{queue}", "-inf", now_ms - WORKER_SEEN_WITHIN_MS)
            if completed:
                pipe.incrby(minute, completed)
                pipe.expire(minute, 3_660)
            pipe.execute()

    def sign_out(self, queue: str, worker: str) -> None:
        """Note that this worker stops."""
        self.client.zrem(f"{self._ns}:__workers__.{queue}", worker)

    def dead_message(self, queue: str, redis_id: str) -> DeadMessage | None:
        """Return one dead message; None where it is not there, or no more."""
        died_at = self.client.zscore(f"{self._ns}:{queue}.XQ", redis_id)
        content = self.client.hget(f"{self._ns}:{queue}.XQ.msgs", redis_id)
        if died_at is None or content is None:
            return None
        return DeadMessage(queue, redis_id, _bytes(content), int(died_at))

    def dead_messages(self, queue: str, *, older_than_ms: int, limit: int, skip: int = 0) -> list[DeadMessage]:
        """Return the messages that died before the last `older_than_ms`, the oldest first, without the first `skip`."""
        until = self._now_ms() - older_than_ms
        ids: list[Any] = list(
            self.client.zrange(f"{self._ns}:{queue}.XQ", "-inf", until, byscore=True, offset=skip, num=limit)
        )
        found = (self.dead_message(queue, _bytes(redis_id).decode()) for redis_id in ids)
        return [message for message in found if message is not None]

    def forget_dead(self, message: DeadMessage) -> None:
        """Drop a dead message that is safe elsewhere."""
        with self.client.pipeline() as pipe:
            pipe.zrem(f"{self._ns}:{message.queue}.XQ", message.redis_id)
            pipe.hdel(f"{self._ns}:{message.queue}.XQ.msgs", message.redis_id)
            pipe.execute()

    def server(self) -> Server:
        """Return what Redis says of itself."""
        memory = self.client.info("memory")
        return Server(
            memory_bytes=int(memory["used_memory"]),
            memory_limit_bytes=int(memory["maxmemory"]) or int(memory["total_system_memory"]),
            connections=int(self.client.info("clients")["connected_clients"]),
        )


def taken_key(namespace: str, *, broker_id: str, queue: str) -> str:
    """Name the set of message ids that a broker has taken from a queue and not acknowledged."""
    return f"{namespace}:__acks__.{broker_id}.{queue}"


def content_key(namespace: str, *, queue: str) -> str:
    """Name the hash of a queue's messages by their ids."""
    return f"{namespace}:{queue}.msgs"


def _depth(queue: str, row: list[Any], *, now_ms: int) -> Depth:
    ready, messages, delayed, dead, oldest, due, stranded, workers, completed, taken, sent = row
    return Depth(
        queue=queue,
        ready=ready,
        in_flight=max(0, messages - ready),
        delayed=delayed,
        dead=dead,
        stranded=stranded,
        workers=workers,
        completed_1h=completed,
        oldest_ready_age_s=None if oldest is None else max(0.0, (now_ms - _due_at_ms(oldest, now_ms)) / 1000),
        overdue_s=_age_s(int(due), now_ms),
        oldest_in_flight_age_s=_age_s(int(taken), now_ms),
        oldest_delayed_age_s=_age_s(int(sent), now_ms),
    )


def _age_s(moment_ms: int, now_ms: int) -> float:
    return max(0.0, (now_ms - moment_ms) / 1000) if moment_ms >= 0 else 0.0


def _due_at_ms(content: bytes, now_ms: int) -> int:
    """Return when a message was due: its intended delay is no waiting."""
    try:
        message = json.loads(content)
        return int(message["options"].get("due_at", message["message_timestamp"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return now_ms


def _bytes(found: bytes | str) -> bytes:
    return found.encode() if isinstance(found, str) else found
