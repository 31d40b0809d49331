"""What is kept for a limited time is forgotten: letters, idempotency keys, jobs and e-mails that are over, origins,
rates of what nobody asks for any more.

What is kept for good is kept small: ranges of blocks that follow one another become one.
"""

from datetime import timedelta

from ctrip.context import Context
from ctrip.database import (
    audit_log,
    coverage,
    cursors,
    dead_letters,
    emails,
    idempotency,
    jobs,
    loops,
    rates,
    webhook_origins,
)
from ctrip.domain import emails as email_rules
from ctrip.domain import jobs as job_rules
from ctrip.domain.audit_log import SCHEDULER
from ctrip.domain.dead_letters import Action
from ctrip.domain.idempotency import KEPT_FOR
from ctrip.domain.loops import LoopKind
from ctrip.domain.times import timestamp
from ctrip.domain.webhooks import SLOW_KEPT
from ctrip.log import get_logger

BATCH = 1_000
log = get_logger()


def forget(ctx: Context) -> int:
    """Delete one batch of each kind of rows that are out of date. Returns how many; call again while that is not 0.

    Several schedulers may do this at once. No dead letter goes unseen: the audit log has how many went, and when they
    had died, and where nobody had looked at one, a warning says so.
    """
    # Letters first: a job or an e-mail stays for as long as a letter speaks of it, whose replay would need it.
    deleted = _forget_dead_letters(ctx)
    with ctx.sessions.begin() as session:
        deleted += idempotency.forget(session, before=ctx.now() - KEPT_FOR, limit=BATCH)
        deleted += jobs.forget(session, older_than=job_rules.KEPT, limit=BATCH)
        deleted += emails.forget(session, older_than=email_rules.KEPT, limit=BATCH)
        deleted += rates.forget(session, ctx.settings.rate_pairs)
    deleted += _join_ranges(ctx)
    # By itself, so that a webhook to one of them waits for no longer than these few are deleted.
    with ctx.sessions.begin() as session:
        return deleted + webhook_origins.forget(session, slow_before=SLOW_KEPT, limit=BATCH)


def _join_ranges(ctx: Context) -> int:
    """Make the ranges of blocks that were read fewer, of each chain behind the lock of whoever notes them."""
    joined = 0
    with ctx.sessions.begin() as session:
        read = cursors.find_all(session)
        known = {loop.name for loop in loops.find_all(session)}
    for chain_id, cursor in read.items():
        name = loops.loop_name(LoopKind.LISTENER, chain_id)
        if name in known:
            with ctx.sessions.begin() as session:
                loops.lock(session, name)
                joined += coverage.join(session, chain_id, upto=cursor.read_block, limit=BATCH)
    return joined


def _forget_dead_letters(ctx: Context) -> int:
    kept = timedelta(days=ctx.settings.dead_letters_kept_days)
    if not kept:
        return 0
    with ctx.sessions.begin() as session:
        forgotten = dead_letters.forget(session, older_than=kept, limit=BATCH)
        if not forgotten.deleted:
            return 0
        told = {"deleted": forgotten.deleted, "open": forgotten.open, "died_before": timestamp(forgotten.before)}
        audit_log.add(session, by=SCHEDULER, action=Action.FORGET, target=None, detail=told, new_id=ctx.new_id)
    tell = log.warning if forgotten.open else log.info
    tell("dead_letters_forgotten", **told)
    return forgotten.deleted
