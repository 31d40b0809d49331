"""Whether this process can serve: Postgres and its revision decide; Redis and the chains can only be amiss."""

from datetime import timedelta
from typing import Any

from ctrip import __version__
from ctrip.context import Context
from ctrip.database import cursors, loops, schema
from ctrip.domain.chains import Chain
from ctrip.domain.loops import LoopKind
from ctrip.domain.scanning import Cursor
from ctrip.errors import Unavailable
from ctrip.outbound import redis

_QUIET_FOR = timedelta(seconds=60)
"""A chain whose listener was not seen for this long, beyond its own period, is lagging, whatever its cursor says."""


def check(ctx: Context) -> dict[str, Any]:
    """Return `status` (`ok`, `degraded`, or `unavailable`: do not send requests here) and each check by itself."""
    checks: dict[str, Any] = {"postgres": "ok", "migrations": "unknown", "redis": "ok", "chains": {}}
    try:
        with ctx.sessions.begin() as session:
            current = schema.stored_revision(session) == schema.shipped_revision()
            checks["migrations"] = "ok" if current else "missing"
            if current:
                read, ticks = cursors.find_all(session), {loop.name: loop for loop in loops.find_all(session)}
                checks["chains"] = {
                    chain.name: _progress(ctx, chain, cursor=read.get(chain.chain_id), ticks=ticks)
                    for chain in ctx.settings.chains
                    if chain.enabled
                }
    except Unavailable:
        checks["postgres"] = "unavailable"
    if not redis.answers(ctx.settings.redis_url):
        checks["redis"] = "unavailable"
    return {"status": _status(checks), "version": __version__, "checks": checks}


def _status(checks: dict[str, Any]) -> str:
    if (checks["postgres"], checks["migrations"]) != ("ok", "ok"):
        return "unavailable"
    parts = {checks["redis"], *checks["chains"].values()}
    return "ok" if parts == {"ok"} else "degraded"


def _progress(ctx: Context, chain: Chain, *, cursor: Cursor | None, ticks: dict[str, loops.Loop]) -> str:
    if cursor is None:
        return "not_ready"
    if cursor.stopped_reason is not None:
        return "stopped"
    listener = ticks.get(loops.loop_name(LoopKind.LISTENER, chain.chain_id))
    last_tick_at = None if listener is None else listener.last_tick_at
    is_quiet = last_tick_at is None or ctx.now() - last_tick_at > _QUIET_FOR + chain.poll
    return "lagging" if is_quiet or cursor.head_block - cursor.read_block > chain.reorg_window else "ok"
