"""The sweeper's use case: final money leaves the deposit addresses for the treasury, each of it once.

    claim the loop · plan · settle (what is final) · sign sweeps · sign their gas · follow (broadcast, receipts, prices)

Each step reads the rows, asks the node with no transaction open, and stores what follows in fenced transactions that
check again what they were decided on. What is broadcast was stored and committed before: a crash at any line leaves
intents that the next tick takes up where they stand.
"""

from datetime import timedelta

from ctrip.context import Context
from ctrip.database import audit_log, intents, payments, signers
from ctrip.domain.loops import LoopKind, Tick
from ctrip.domain.sweeps import HeldReason, IntentState
from ctrip.errors import Conflict, NotFound
from ctrip.runs import Run, run_loop
from ctrip.services.sweeping.asked import sweep_address, sweep_now
from ctrip.services.sweeping.ticking import tick

__all__ = ["gas_balances", "resume_sweep", "sweep_address", "sweep_chain", "sweep_now"]


def sweep_chain(ctx: Context, chain_id: int) -> Tick:
    """Run the sweeper's loop of a chain once.

    What the node does (silence, errors) is an outcome: the loop is released and goes on where it stood. Nothing is
    signed or judged on a chain that was never read, or that is stopped.
    """
    return run_loop(ctx, LoopKind.SWEEPER, chain_id, work=_work)


def gas_balances(ctx: Context) -> dict[int, int]:
    """Return, by chain id, the wei that the gas wallet held when the sweeper last looked. Needs no key and no node."""
    with ctx.sessions.begin() as session:
        return signers.gas_balances(session)


def resume_sweep(ctx: Context, intent_id: str, *, by: str) -> list[str]:
    """Let a sweep that is held for a human go on, because one has looked. Returns the ids of due deliveries.

    Where another used the key of its sender, what the chain counts is believed from now on: a human says that this
    is right, after a restored backup for one. Raises NotFound where no such sweep is held, and Conflict where a
    transaction of the sender is under way.
    """
    with ctx.sessions.begin() as session:
        held = intents.lock(session, [intent_id]).get(intent_id)
        if held is None or held.state is not IntentState.HELD:
            raise NotFound(f"no sweep {intent_id} is held")
        if held.nonce is not None or intents.spends(session, held.chain_id, held.sender):
            raise Conflict(f"a transaction of the sender of {intent_id} is under way: its nonce is not free")
        if held.held_reason is HeldReason.FOREIGN_NONCE:
            signers.forget(session, held.chain_id, held.sender)
        intents.release(session, held)
        detail = {"held_reason": held.held_reason}
        audit_log.add(session, by=by, action="sweeps.resume", target=intent_id, detail=detail, new_id=ctx.new_id)
        return payments.reassess(session, [held.payment_id], chains=ctx.settings.chains_by_id, new_id=ctx.new_id)


def _work(loop: Run) -> timedelta:
    tick(loop)
    return loop.chain.poll
