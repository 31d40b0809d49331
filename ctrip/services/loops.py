"""Loops exist, and run: what the watchdog does, any number of which may do it at once, and what operators do."""

from datetime import timedelta

from sqlalchemy import Connection

from ctrip import metrics
from ctrip.context import Context
from ctrip.database import audit_log, loops
from ctrip.domain.loops import LoopKind, period
from ctrip.domain.times import timestamp
from ctrip.errors import Conflict, NotFound
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
                loops.ensure(session, kind=kind, chain_id=chain.chain_id, every=period(kind, chain))
                metrics.LOOP_KICKS.labels(loop=loops.loop_name(kind, chain.chain_id))  # shown from its start, at zero


def kick_overdue(ctx: Context, *, grace: timedelta = GRACE) -> list[tuple[LoopKind, int]]:
    """Return kind and chain of the loops whose message must be sent: it was lost, or there never was one.

    A crash between this and the sending costs AGAIN_AFTER.
    """
    # The row of a chain that is no longer in the file stays, and nobody runs it.
    enabled = [chain.chain_id for chain in ctx.settings.chains if chain.enabled]
    with ctx.sessions.begin() as session:
        kicked = loops.kick_overdue(session, chain_ids=enabled, grace=grace, again_after=AGAIN_AFTER)
    for loop in kicked:
        metrics.LOOP_KICKS.labels(loop=loop.name).inc()
        log.info("loop_kicked", loop=loop.name, is_first=loop.last_tick_at is None)
    return [(LoopKind(loop.kind), loop.chain_id) for loop in kicked]


def overview(ctx: Context) -> list[dict[str, object]]:
    """Return every loop's row as operators see it."""
    with ctx.sessions.begin() as session:
        return [_shown(loop) for loop in loops.find_all(session)]


def pause(ctx: Context, name: str, *, by: str) -> dict[str, object]:
    """Let a loop rest: the run at hand ends, and no other begins until it is resumed. Raises NotFound."""
    return _switch(ctx, name, enabled=False, by=by)


def resume(ctx: Context, name: str, *, by: str) -> dict[str, object]:
    """Let a paused loop run again, from where it stopped. Raises NotFound."""
    return _switch(ctx, name, enabled=True, by=by)


def run(ctx: Context, name: str, *, by: str) -> dict[str, object]:
    """Make a loop run within two seconds, also when it is not due. Raises NotFound.

    Raises Conflict where it is paused, or its chain is not served. A loop that is running at this moment runs again
    when it would have.
    """
    with ctx.sessions.begin() as session:
        chain = ctx.settings.chain(_find(session, name).chain_id)
        if chain is None or not chain.enabled:
            raise Conflict(f"the chain of the loop {name} is not served: it is switched off or not in the chains file")
        loop = loops.make_overdue(session, name, by=GRACE)
        if loop is None:
            raise Conflict(f"the loop {name} is paused; resume it first")
        audit_log.add(session, by=by, action="loops.run", target=name, detail={}, new_id=ctx.new_id)
    return _shown(loop)


def _switch(ctx: Context, name: str, *, enabled: bool, by: str) -> dict[str, object]:
    with ctx.sessions.begin() as session:
        was = _find(session, name)
        loop = loops.set_enabled(session, name, enabled=enabled)
        if enabled and not was.enabled:
            loop = loops.make_overdue(session, name, by=GRACE)
        action = "loops.resume" if enabled else "loops.pause"
        detail = {"was_enabled": was.enabled}
        audit_log.add(session, by=by, action=action, target=name, detail=detail, new_id=ctx.new_id)
    log.warning("loop_resumed" if enabled else "loop_paused", loop=name, by=by)
    return _shown(loop or was)


def _find(session: Connection, name: str) -> loops.Loop:
    loop = loops.find(session, name)
    if loop is None:
        raise NotFound(f"there is no loop {name[:60]!r}")
    return loop


def _shown(loop: loops.Loop) -> dict[str, object]:
    return {
        "name": loop.name,
        "every_ms": int(loop.every / timedelta(milliseconds=1)),
        "enabled": loop.enabled,
        "next_run_at": timestamp(loop.next_run_at),
        "last_tick_at": loop.last_tick_at and timestamp(loop.last_tick_at),
        "lease_until": loop.lease_until and timestamp(loop.lease_until),
        "fence": loop.fence,
    }
