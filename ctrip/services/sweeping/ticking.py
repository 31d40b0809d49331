"""One tick: the five steps in their order."""

from collections.abc import Callable

from ctrip import runs
from ctrip.errors import MisconfiguredError
from ctrip.services.sweeping.following import follow
from ctrip.services.sweeping.funding import sign_topups
from ctrip.services.sweeping.planning import plan
from ctrip.services.sweeping.run import Run
from ctrip.services.sweeping.settling import settle
from ctrip.services.sweeping.signing import sign_sweeps


def tick(loop: runs.Run, *, first: Callable[[Run], None] | None = None) -> list[tuple[str, dict[str, object]]]:
    """Take the sweeps of a chain on by one step, after what `first` does. Returns what became of them.

    Nothing happens on a chain that was never read, or that is stopped.
    """
    ctx, chain_id = loop.ctx, loop.chain.chain_id
    if ctx.signer is None:
        raise MisconfiguredError("this process holds no keys: sweeps are the sweeper's alone")
    if loop.position is None or loop.position.cursor.stopped_reason is not None:
        return []
    run = Run(loop, client=ctx.clients[chain_id], signer=ctx.signer, cursor=loop.position.cursor)
    if first is not None:
        first(run)
    plan(run)
    settle(run)
    sign_sweeps(run)
    sign_topups(run)
    follow(run)
    return run.told
