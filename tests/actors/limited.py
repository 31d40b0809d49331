"""Actors on cTrip's own broker, in the email queue, that do nothing but use up what the table of actors limits.

`dramatiq tests.actors.limited --queues email` runs them in the environment of an e-mail worker. What they do is noted
in Redis.
"""

import os
import time
from datetime import timedelta

from actors import Rule
from actors.broker import actor, broker, context

QUEUE = "email"
_SHORT = timedelta(milliseconds=50)


HOLD = Rule("hold", QUEUE, "", timedelta(seconds=60))
OVERRUN = Rule("overrun", QUEUE, "", timedelta(seconds=1), retries=1, first_wait=_SHORT, longest_wait=_SHORT)
FAIL = Rule("fail", QUEUE, "", timedelta(seconds=60), first_wait=_SHORT, longest_wait=_SHORT)


@actor(HOLD)
def hold(name: str, seconds: float, number: int = 0) -> None:
    """Note how many of us run, and in which process, on which context. `number` makes messages differ."""
    now = broker.client.incr(f"noted:{name}:running")
    broker.client.zadd(f"noted:{name}:seen", {str(now): now})
    broker.client.sadd(f"noted:{name}:contexts", f"{os.getpid()}:{id(context())}")
    time.sleep(seconds)
    broker.client.decr(f"noted:{name}:running")
    broker.client.incr(f"noted:{name}:ended")


@actor(OVERRUN)
def overrun(name: str) -> None:
    broker.client.incr(f"noted:{name}:begun")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.01)
    broker.client.incr(f"noted:{name}:ended")


@actor(FAIL)
def fail(name: str) -> None:
    broker.client.incr(f"noted:{name}:begun")
    raise ArithmeticError(name)
