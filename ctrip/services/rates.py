"""Rates are asked for in the background and kept: no request of a client, and no payment, ever waits for a source.

claim what is due ──> ask each source, all at once, no transaction open ──> store what it told, and how it does
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from ctrip import metrics
from ctrip.context import Context
from ctrip.database import rates
from ctrip.domain.rates import Quoted, survey
from ctrip.log import get_logger, redact
from ctrip.outbound.rates import Answer

MOST_WAIT_S = 3600
"""No source is left alone for longer, whatever its Retry-After says."""
_LONGEST_ERROR = 300
log = get_logger()


@dataclass(frozen=True)
class Report:
    """What is known of rates at `taken_at`: each asset in each currency, and how each source does."""

    taken_at: datetime
    quoted: list[Quoted]
    sources: dict[str, rates.SourceState]


def refresh(ctx: Context) -> int:
    """Ask the sources that are due and keep what they tell. Returns how many were asked.

    Several schedulers ask a source once: a claim is one statement. A source that fails, is slow or is down is noted and
    hinders no other; what it told before stays, and grows old. After a crash it is asked again in the next round.
    """
    asked = ctx.settings.rate_pairs
    due = [source for source, pairs in asked.items() if pairs]
    if not due:
        return 0
    with ctx.sessions.begin() as session:
        claimed = rates.claim(session, due, every=ctx.settings.rates.refresh)
    if claimed:
        with ThreadPoolExecutor(max_workers=len(claimed)) as pool:
            for done in [pool.submit(_ask, ctx, source, asked_at=asked_at) for source, asked_at in claimed.items()]:
                done.result()
    return len(claimed)


def report(ctx: Context) -> Report:
    """Tell what is known of each asset that has a name for some source, in each currency."""
    settings = ctx.settings
    with ctx.sessions.begin() as session:
        words, sources = rates.find_all(session), rates.find_sources(session)
    now = ctx.now()
    currencies, policy = settings.rates.currencies, settings.rates.policy
    return Report(now, survey(words, settings.chains, currencies=currencies, policy=policy, now=now), sources)


def _ask(ctx: Context, source: str, *, asked_at: datetime) -> None:
    """Ask one source, and store all that came of it in one transaction."""
    answer = ctx.rate_sources[source].ask(ctx.settings.rate_pairs[source], asked_at=asked_at)
    error = _error(answer)
    for refusal in (*answer.refused.values(), *filter(None, [answer.failure])):
        metrics.RATE_REFUSALS.labels(source=source, reason=refusal.reason).inc()
    with ctx.sessions.begin() as session:
        rates.store(session, answer.told, asked_at=asked_at)
        before = rates.note(session, source, error=error, wait=_wait(answer))
    # Once for each change: a pair that a source does not know is no news every minute.
    if error is not None and error != before:
        log.warning("rates_refused", source=source, told=len(answer.told), error=error)
    if error is None and before is not None:
        log.info("rates_told_again", source=source)


def _error(answer: Answer) -> str | None:
    """Say in a line what a source did not tell, and why; None where it told all."""
    pairs = [f"{pair}: {refusal.detail}" for pair, refusal in answer.refused.items()]
    failure = [] if answer.failure is None else [answer.failure.detail]
    return redact("; ".join(failure + pairs))[:_LONGEST_ERROR] or None


def _wait(answer: Answer) -> timedelta:
    asked = None if answer.failure is None else answer.failure.retry_after_s
    return timedelta(seconds=min(asked or 0, MOST_WAIT_S))
