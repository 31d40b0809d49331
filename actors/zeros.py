"""Counters that stand at zero before anything happens: rate() and increase() see a first event only after a zero."""

from collections.abc import Iterable

from actors import LISTEN_FOR_PAYMENTS, SEND_EMAIL, SEND_WEBHOOK, SWEEP_PAYMENTS, TABLE, Rule
from ctrip import metrics
from ctrip.domain.chains import Chain
from ctrip.domain.dead_letters import Reason
from ctrip.domain.rates import Refusal
from ctrip.settings import Settings

_ALWAYS_POSSIBLE = "TimeLimitExceeded"
"""The exception that any actor may end with; the classes of others are known when they come."""


def of_worker(settings: Settings, queue: str) -> None:
    """Show what a worker of this queue may count, before it takes its first message."""
    for rule in TABLE:
        if rule.queue == queue:
            _of_actor(rule)
    for chain in settings.chains:
        if chain.enabled:
            _of_chain(queue, chain)
    if queue == SEND_WEBHOOK.queue:
        for outcome in metrics.ATTEMPT_OUTCOMES:
            metrics.WEBHOOK_ATTEMPTS.labels(outcome=outcome)
    if queue == SEND_EMAIL.queue:
        for outcome in metrics.EMAIL_OUTCOMES:
            metrics.EMAIL_ATTEMPTS.labels(outcome=outcome)


def of_scheduler(settings: Settings) -> None:
    """Show what a scheduler may count: dead letters that workers could not record, and rates that are of no use."""
    _of_deaths((rule.queue, rule.actor) for rule in TABLE)
    for source in settings.rates.sources:
        for reason in Refusal:
            metrics.RATE_REFUSALS.labels(source=source, reason=reason)


def _of_actor(rule: Rule) -> None:
    labels = {"queue": rule.queue, "actor": rule.actor}
    for outcome in metrics.RUN_OUTCOMES:
        metrics.ACTOR_RUNS.labels(**labels, outcome=outcome)
    metrics.ACTOR_WAIT.labels(**labels)
    metrics.ACTOR_DURATION.labels(**labels)
    metrics.ACTOR_RETRIES.labels(**labels, reason=_ALWAYS_POSSIBLE)
    metrics.ACTOR_ERRORS.labels(actor=rule.actor, exception=_ALWAYS_POSSIBLE)
    _of_deaths([(rule.queue, rule.actor)])


def _of_chain(queue: str, chain: Chain) -> None:
    name = chain.name
    if queue == LISTEN_FOR_PAYMENTS.queue:
        metrics.REORGS.labels(chain=name)
        for kind in metrics.DISAGREEMENTS:
            metrics.CHAIN_DISAGREEMENTS.labels(chain=name, kind=kind)
        for token in chain.tokens:
            if not token.is_native:
                metrics.TOKEN_UPGRADES.labels(chain=name, token=token.symbol)
        metrics.BALANCE_MISMATCHES.labels(chain=name)
        metrics.PAYMENT_DETECT.labels(chain=name)
    if queue == SWEEP_PAYMENTS.queue:
        for outcome in metrics.SWEEP_OUTCOMES:
            metrics.SWEEPS.labels(chain=name, outcome=outcome)


def _of_deaths(actors: Iterable[tuple[str, str]]) -> None:
    for queue, actor in actors:
        # A message that cannot be read names no actor.
        metrics.DEAD_LETTERS.labels(queue=queue, actor="", reason=Reason.UNDECODABLE)
        for reason in Reason:
            metrics.DEAD_LETTERS.labels(queue=queue, actor=actor, reason=reason)
