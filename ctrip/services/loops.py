"""Loops exist, and run: the watchdog's use cases. Any number of schedulers may run them at once."""

from datetime import timedelta

from ctrip import metrics
from ctrip.context import Context
from ctrip.database import loops
from ctrip.domain.loops import LoopKind
from ctrip.domain.times import timestamp
from ctrip.log import get_logger

GRACE = timedelta(seconds=1.5)
"""How long a loop may be overdue before its message counts as lost: longer than a message waits in a healthy queue."""
AGAIN_AFTER = timedelta(seconds=5)
log = get_logger()


def ensure_loops(ctx: Context) -> None:
    """Make every loop of every enabled chain exist, with the period that its chain asks for."""
    with ctx.sessions.begin() as session:
        for chain in ctx.settings.chains:
            for kind in LoopKind if chain.enabled else ():
                loops.ensure(session, kind=kind, chain_id=chain.chain_id, every=chain.poll)


def kick_overdue(ctx: Context, *, grace: timedelta = GRACE) -> list[tuple[LoopKind, int]]:
    """Return kind and chain of the loops whose message must be sent: it was lost, or there never was one.

    A crash between this and the sending costs AGAIN_AFTER.
    """
    with ctx.sessions.begin() as session:
        kicked = loops.kick_overdue(session, grace=grace, again_after=AGAIN_AFTER)
    enabled = {chain.chain_id for chain in ctx.settings.chains if chain.enabled}
    # The row of a chain that is no longer in the file stays, and nobody runs it.
    revived = [loop for loop in kicked if loop.chain_id in enabled]
    for loop in revived:
        metrics.LOOP_KICKS.labels(loop=loop.name).inc()
        log.info("loop_kicked", loop=loop.name, is_first=loop.last_tick_at is None)
    return [(LoopKind(loop.kind), loop.chain_id) for loop in revived]


def overview(ctx: Context) -> list[dict[str, object]]:
    """Return every loop's row as operators see it."""
    with ctx.sessions.begin() as session:
        found = loops.find_all(session)
    return [
        {
            "name": loop.name,
            "every_ms": int(loop.every / timedelta(milliseconds=1)),
            "enabled": loop.enabled,
            "next_run_at": timestamp(loop.next_run_at),
            "last_tick_at": loop.last_tick_at and timestamp(loop.last_tick_at),
            "lease_until": loop.lease_until and timestamp(loop.lease_until),
            "fence": loop.fence,
        }
        for loop in found
    ]
