"""The actors. One table says who works on which queue, and which actor does what there, for how long and how often.

A message carries the id of one row and means "look at it now". An actor makes one service call and sends messages for
the ids that it returned. The rows in Postgres decide whether there is anything to do, so a message that comes twice
does nothing the second time, and one that is lost is sent again by the scheduler.
"""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Group:
    """The workers of one queue, which take from no other: a flood in one queue never delays another.

    They are a Dramatiq master with `processes` forks of `threads` threads each, so that no more than `most_at_once`
    messages run at a time. `secrets` are the settings among SECRETS that its environment may hold; `worker.sh` takes
    the others out, and reads its defaults here.

    A process calls `on_start` once, before it takes a message, and `on_stop` once, after its last (`actors.boot`).

    Whoever stops it gives it `stop_within`. What does not end by then is cut off and runs again elsewhere, which its
    row makes harmless: a scan stores nothing before its end, and a sweep is stored before it is broadcast, so one that
    was cut off in between was never seen by anybody. A POST or an e-mail cannot be taken back: their time limits are
    shorter than `stop_within`.
    """

    queue: str
    processes: int
    threads: int
    secrets: tuple[str, ...] = ()
    stop_within: timedelta = timedelta(seconds=50)
    on_start: str = "bootstrap.bootstrap"
    on_stop: str = "bootstrap.shut_down"

    @property
    def most_at_once(self) -> int:
        """The most messages that run at a time."""
        return self.processes * self.threads


GROUPS = (
    Group("listener", processes=1, threads=8),
    Group("sweeper", processes=1, threads=4, secrets=("WALLET_XPUB", "WALLET_MNEMONIC", "GAS_KEY")),
    Group("webhook", processes=1, threads=16, secrets=("SECRETS_KEY",)),
    Group("email", processes=1, threads=2, secrets=("SMTP_URL",)),
)
QUEUES = tuple(group.queue for group in GROUPS)
SECRETS = (*(secret for group in GROUPS for secret in group.secrets), "COINGECKO_API_KEY")
"""What one group, or the scheduler, may hold and the others may not. Each has a `…_FILE` form, which is as secret."""


@dataclass(frozen=True)
class Rule:
    """How one actor runs. `service` is the function that it calls, below `ctrip.services`.

    `retries` are for exceptions that no service expected, with waits that double from `first_wait` and vary between
    one and two times that; all of them fit in a minute. After the last the message is a dead letter. What a service
    does expect (a node that is silent, a webhook that fails) it stores on the row with the time of the next try.

    `result_kept` is how long the row that it leaves is kept after its end (the domain's KEPT); None where it leaves
    none, or one that is part of the books and is kept for good.
    """

    actor: str
    queue: str
    service: str
    time_limit: timedelta
    retries: int = 3
    first_wait: timedelta = timedelta(seconds=2)
    longest_wait: timedelta = timedelta(seconds=16)
    result_kept: timedelta | None = None

    @property
    def tries(self) -> int:
        """How often a message runs at the most."""
        return 1 + self.retries


LISTEN_FOR_PAYMENTS = Rule("listen_for_payments", "listener", "scanning.scan_chain", timedelta(seconds=60))
CHECK_BALANCES = Rule("check_balances", "listener", "inflows.check_balances", timedelta(seconds=60))
SWEEP_PAYMENTS = Rule("sweep_payments", "sweeper", "sweeping.sweep_chain", timedelta(seconds=120))
SEND_WEBHOOK = Rule("send_webhook", "webhook", "webhooks.deliver", timedelta(seconds=45))
SEND_EMAIL = Rule("send_email", "email", "emails.send", timedelta(seconds=45), result_kept=timedelta(days=30))


def _job(actor: str, queue: str, service: str, *, seconds: int) -> Rule:
    return Rule(actor, queue, service, timedelta(seconds=seconds), result_kept=timedelta(days=7))


# What an operator asks for: one actor for each kind of job, in the queue whose workers may do it.
SCAN_NOW = _job("job_scan_now", "listener", "scanning.scan_now", seconds=60)
PROCESS_PAYMENT = _job("job_process_payment", "listener", "rereading.process_payment", seconds=60)
BACKFILL = _job("job_backfill", "listener", "rereading.backfill", seconds=60)
SWEEP_NOW = _job("job_sweep_now", "sweeper", "sweeping.sweep_now", seconds=120)
SWEEP_ADDRESS = _job("job_sweep_address", "sweeper", "sweeping.sweep_address", seconds=120)
RESEND_WEBHOOK = _job("job_send_webhook", "webhook", "resending.send_webhook", seconds=45)
CUSTOM_WEBHOOK = _job("job_custom_webhook", "webhook", "resending.custom_webhook", seconds=45)

JOBS = (SCAN_NOW, PROCESS_PAYMENT, BACKFILL, SWEEP_NOW, SWEEP_ADDRESS, RESEND_WEBHOOK, CUSTOM_WEBHOOK)
TABLE = (LISTEN_FOR_PAYMENTS, CHECK_BALANCES, SWEEP_PAYMENTS, SEND_WEBHOOK, SEND_EMAIL, *JOBS)
