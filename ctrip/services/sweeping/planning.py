"""The first step: a planned sweep for all final money that none is under way for."""

from collections.abc import Sequence

from ctrip import metrics
from ctrip.database import sweeps
from ctrip.database.sweeps import Planned
from ctrip.domain.sweeps import IntentKind
from ctrip.log import get_logger
from ctrip.services.sweeping.run import Run

log = get_logger()


def plan(run: Run) -> None:
    """Plan sweeps. One that is held from the start is told to its payment."""
    with run.storing() as session:
        planned = sweeps.plan(
            session,
            run.chain,
            since_block=_newly_final(run) - 2 * run.chain.reorg_window,
            turn=run.loop.claim.fence,
            new_id=run.ctx.new_id,
        )
        run.reassess(session, [each.payment_id for each in planned if each.is_held])
    _tell(run, planned)


def plan_asked(run: Run, *, address: bytes, token: bytes) -> None:
    """Plan a sweep that somebody asked for, where final money waits and none is under way."""
    with run.storing() as session:
        planned = sweeps.plan_one(session, run.chain, address=address, token=token, new_id=run.ctx.new_id)
        run.reassess(session, [each.payment_id for each in planned if each.is_held])
    _tell(run, planned)


def _newly_final(run: Run) -> int:
    """Return the block that what becomes final now is near: the chain's own word may be far behind the head."""
    tagged = [each.number for each in (run.cursor.safe, run.cursor.finalized) if each is not None]
    return min([run.cursor.read_block, *tagged])


def _tell(run: Run, planned: Sequence[Planned]) -> None:
    for each in planned:
        outcome = "held" if each.is_held else "planned"
        metrics.SWEEPS.labels(chain=run.chain.name, outcome=outcome).inc()
        tell = log.error if each.is_held else log.info
        facts: dict[str, object] = {
            "intent_id": each.intent_id,
            "payment_id": each.payment_id,
            "owed": str(each.owed),
            **({"reason": "repeated_failure"} if each.is_held else {}),
        }
        tell(f"sweep_{outcome}", chain=run.chain.name, **facts)
        run.told.append((outcome, {"kind": str(IntentKind.SWEEP)} | facts))
