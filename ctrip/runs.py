"""One run of a loop: claim or die, keep the lease, write behind the fence, release.

claim (fence + 1) ──> work ──> release: due again after a while
  │                    ├── ChainError: released; what the node does is an outcome, and it is tried again
  │                    ├── LostFence: another run has claimed it: nothing is written, and no successor is sent
  │                    └── anything else: released, and raised for the actor's retries and its dead letter
  └── not won: the message dies
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from ctrip import metrics
from ctrip.context import Context
from ctrip.database import loops
from ctrip.domain.chains import Chain
from ctrip.domain.loops import LoopKind, Tick
from ctrip.errors import ChainError, LostFence
from ctrip.log import get_logger

AFTER_A_FAULT = timedelta(seconds=1)
"""The least pause after a node failed: one that is down is not asked twice a second."""

log = get_logger()


@dataclass
class Run:
    """A claimed run on a chain. `delivery_ids` gathers the webhooks that its transactions made due."""

    ctx: Context
    claim: loops.Claim
    chain: Chain
    claimed_at: datetime
    delivery_ids: list[str] = field(default_factory=list)
    is_released: bool = False

    @contextmanager
    def storing(self) -> Iterator[Session]:
        """Open a transaction that writes only while this run still owns the loop. Raises LostFence."""
        with self.ctx.sessions.begin() as session:
            loops.hold(session, self.claim)
            yield session

    def keep_lease(self) -> None:
        """Renew the lease when a good part of it is over. Call it after each request to a node. Raises LostFence."""
        if self.ctx.now() - self.claimed_at < loops.LEASE / 4:
            return
        with self.ctx.sessions.begin() as session:
            loops.renew(session, self.claim)
        self.claimed_at = self.ctx.now()

    def release(self, session: Session, *, again_in: timedelta) -> None:
        """End the run in the transaction that stores its work, instead of in one more."""
        loops.release(session, self.claim, again_in=again_in)
        self.is_released = True


def run_loop(ctx: Context, kind: LoopKind, chain_id: int, *, work: Callable[[Run], timedelta]) -> Tick:
    """Run a loop once; `work` returns how long the loop may rest. A chain that is not enabled has no loops."""
    chain, name, claimed_at = ctx.settings.chain(chain_id), loops.loop_name(kind, chain_id), ctx.now()
    if chain is None or not chain.enabled:
        log.warning("loop_of_no_chain", loop=name)
        return Tick()
    with ctx.sessions.begin() as session:
        claim = loops.claim(session, name)
    metrics.LOOP_CLAIMS.labels(loop=name, outcome="lost" if claim is None else "won").inc()
    if claim is None:
        return Tick()
    run = Run(ctx, claim, chain, claimed_at)
    try:
        return _work(run, work)
    except LostFence:
        metrics.LOOP_CLAIMS.labels(loop=name, outcome="fenced_out").inc()
        log.warning("loop_fenced_out", loop=name, fence=claim.fence)
        return Tick(delivery_ids=tuple(run.delivery_ids))


def _work(run: Run, work: Callable[[Run], timedelta]) -> Tick:
    again_in, has_ticked = max(run.chain.poll, AFTER_A_FAULT), False
    try:
        again_in = work(run)
        has_ticked = True
    except ChainError as error:
        log.warning("chain_unreadable", loop=run.claim.name, error=error.detail, code=error.code)
    finally:
        # Also where something unexpected goes its way: the message's retry must find the loop free, or it would lose
        # the claim, end well, and hide the fault.
        if not (has_ticked and run.is_released):
            with run.storing() as session:
                loops.release(session, run.claim, again_in=again_in, has_ticked=has_ticked)
    return Tick(again_in=again_in, delivery_ids=tuple(run.delivery_ids))
