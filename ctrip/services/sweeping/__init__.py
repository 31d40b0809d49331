"""The sweeper's use case: final money leaves the deposit addresses for the treasury, each of it once.

    claim the loop · plan · settle (what is final) · sign sweeps · sign their gas · follow (broadcast, receipts, prices)

Each step reads the rows, asks the node with no transaction open, and stores what follows in fenced transactions that
check again what they were decided on. What is broadcast was stored and committed before: a crash at any line leaves
intents that the next tick takes up where they stand.
"""

from datetime import timedelta

from ctrip import metrics
from ctrip.context import Context
from ctrip.database import cursors, intents, loops, payments, signers
from ctrip.domain.chains import Chain
from ctrip.domain.loops import LoopKind, Tick
from ctrip.domain.scanning import Cursor
from ctrip.domain.sweeps import HeldReason, IntentState
from ctrip.errors import ChainError, Conflict, LostFence, MisconfiguredError, NotFound
from ctrip.log import get_logger
from ctrip.services.sweeping.following import follow
from ctrip.services.sweeping.funding import sign_topups
from ctrip.services.sweeping.planning import plan
from ctrip.services.sweeping.run import Run
from ctrip.services.sweeping.settling import settle
from ctrip.services.sweeping.signing import sign_sweeps

__all__ = ["gas_balances", "resume_sweep", "sweep_chain"]

log = get_logger()


def sweep_chain(ctx: Context, chain_id: int) -> Tick:
    """Run the sweeper's loop of a chain once.

    What the node does (silence, errors) is an outcome: the loop is released and goes on where it stood. Nothing is
    signed or judged on a chain that was never read, or that is stopped.
    """
    name = loops.loop_name(LoopKind.SWEEPER, chain_id)
    with ctx.sessions.begin() as session:
        claim = loops.claim(session, name)
    metrics.LOOP_CLAIMS.labels(loop=name, outcome="lost" if claim is None else "won").inc()
    if claim is None:
        return Tick()
    chain = _configured(ctx, chain_id)
    with ctx.sessions() as session:
        cursor = cursors.find(session, chain_id)
    delivery_ids: list[str] = []
    try:
        if cursor is not None and cursor.stopped_reason is None and chain.enabled:
            _take_on(_run(ctx, claim, chain=chain, cursor=cursor, delivery_ids=delivery_ids))
    except ChainError as error:
        log.warning("chain_unreachable_for_sweeps", chain=chain.name, error=error.detail, code=error.code)
    except LostFence:
        metrics.LOOP_CLAIMS.labels(loop=name, outcome="fenced_out").inc()
        log.warning("loop_fenced_out", loop=name, fence=claim.fence)
        return Tick(delivery_ids=tuple(delivery_ids))
    return _release(ctx, claim, again_in=chain.poll, delivery_ids=delivery_ids)


def gas_balances(ctx: Context) -> dict[int, int]:
    """Return, by chain id, the wei that the gas wallet held when the sweeper last looked. Needs no key and no node."""
    with ctx.sessions() as session:
        return signers.gas_balances(session)


def resume_sweep(ctx: Context, intent_id: str) -> list[str]:
    """Let a sweep that is held for a human go on, because one has looked. Returns the ids of due deliveries.

    Where another used the key of its sender, what the chain counts is believed from now on: a human says that this
    is right, after a restored backup for one. Raises NotFound where no such sweep is held, and Conflict where a
    transaction of the sender is under way.
    """
    chains = {chain.chain_id: chain for chain in ctx.settings.chains}
    with ctx.sessions.begin() as session:
        held = intents.lock(session, [intent_id]).get(intent_id)
        if held is None or held.state is not IntentState.HELD:
            raise NotFound(f"no sweep {intent_id} is held")
        if held.nonce is not None or intents.spends(session, held.chain_id, held.sender):
            raise Conflict(f"a transaction of the sender of {intent_id} is under way: its nonce is not free")
        if held.held_reason is HeldReason.FOREIGN_NONCE:
            signers.forget(session, held.chain_id, held.sender)
        intents.release(session, held)
        return payments.reassess(session, [held.payment_id], chains=chains, new_id=ctx.new_id)


def _take_on(run: Run) -> None:
    plan(run)
    settle(run)
    sign_sweeps(run)
    sign_topups(run)
    follow(run)


def _run(ctx: Context, claim: loops.Claim, *, chain: Chain, cursor: Cursor, delivery_ids: list[str]) -> Run:
    if ctx.signer is None:
        raise MisconfiguredError("this process holds no keys: sweeps are the sweeper's alone")
    client = ctx.clients[chain.chain_id]
    return Run(ctx, claim, chain=chain, client=client, signer=ctx.signer, cursor=cursor, delivery_ids=delivery_ids)


def _release(ctx: Context, claim: loops.Claim, *, again_in: timedelta, delivery_ids: list[str]) -> Tick:
    with ctx.sessions.begin() as session:
        loops.release(session, claim, again_in=again_in)
    return Tick(again_in=again_in, delivery_ids=tuple(delivery_ids))


def _configured(ctx: Context, chain_id: int) -> Chain:
    chain = ctx.settings.chain(chain_id)
    if chain is None:
        raise LookupError(f"chain {chain_id} is not configured")
    return chain
