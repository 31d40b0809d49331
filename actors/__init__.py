"""The actors. One table says what runs on which queue, which service it calls, how long it may take, how it is retried.

A message carries the id of one row and means "look at it now". An actor makes one service call and sends messages for
the ids that it returned. The rows in Postgres decide whether there is anything to do, so a message that comes twice
does nothing the second time, and one that is lost is sent again by the scheduler.
"""

from dataclasses import dataclass
from datetime import timedelta

QUEUES = ("listener", "sweeper", "webhook", "email")
"""Each queue has workers of its own (`worker.sh`), so that a flood in one never delays another."""


@dataclass(frozen=True)
class Rule:
    """How one actor runs. `service` is the function that it calls, below `ctrip.services`.

    `retries` are for exceptions that no service expected, with waits that double from `first_wait` and vary between
    one and two times that; all of them fit in a minute. After the last the message is a dead letter. What a service
    does expect (a node that is silent, a webhook that fails) it stores on the row with the time of the next try.
    """

    actor: str
    queue: str
    service: str
    time_limit: timedelta
    retries: int = 3
    first_wait: timedelta = timedelta(seconds=2)
    longest_wait: timedelta = timedelta(seconds=16)


LISTEN_FOR_PAYMENTS = Rule("listen_for_payments", "listener", "scanning.scan_chain", timedelta(seconds=60))
SWEEP_PAYMENTS = Rule("sweep_payments", "sweeper", "sweeping.sweep_chain", timedelta(seconds=120))
SEND_WEBHOOK = Rule("send_webhook", "webhook", "webhooks.deliver", timedelta(seconds=45))

TABLE = (LISTEN_FOR_PAYMENTS, SWEEP_PAYMENTS, SEND_WEBHOOK)
