"""The first step: a planned sweep for all final money that none is under way for."""

from ctrip import metrics
from ctrip.database import sweeps
from ctrip.log import get_logger
from ctrip.services.sweeping.run import Run

log = get_logger()


def plan(run: Run) -> None:
    """Plan sweeps. One that is held from the start is told to its payment."""
    with run.storing() as session:
        planned = sweeps.plan(
            session,
            run.chain,
            read_block=run.cursor.read_block,
            turn=run.loop.claim.fence,
            new_id=run.ctx.new_id,
        )
        held = [each for each in planned if each.is_held]
        if held:
            run.reassess(session, [each.payment_id for each in held])
    for each in planned:
        outcome = "held" if each.is_held else "planned"
        metrics.SWEEPS.labels(chain=run.chain.name, outcome=outcome).inc()
        tell = log.error if each.is_held else log.info
        tell(
            f"sweep_{outcome}",
            chain=run.chain.name,
            intent_id=each.intent_id,
            payment_id=each.payment_id,
            owed=str(each.owed),
            **({"reason": "repeated_failure"} if each.is_held else {}),
        )
