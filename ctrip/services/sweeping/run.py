"""What the steps of one tick share."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from ctrip import metrics
from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database import intents, loops, payments
from ctrip.domain.chains import Chain
from ctrip.domain.scanning import Cursor
from ctrip.domain.sweeps import HeldReason, Intent
from ctrip.log import get_logger

if TYPE_CHECKING:
    from ctrip.blockchain.signer import Signer

BATCH = 50
"""The most intents that one step of one tick looks at."""

_FOR_A_HUMAN = (HeldReason.FOREIGN_NONCE, HeldReason.REPEATED_FAILURE, HeldReason.SIGNING_REFUSED)
log = get_logger()


@dataclass
class Run:
    """One claimed tick of one chain. `cursor` is how far the listener had read when it began."""

    ctx: Context
    claim: loops.Claim
    chain: Chain
    client: ChainClient
    signer: "Signer"
    cursor: Cursor
    delivery_ids: list[str]
    _renewed_at: datetime | None = field(default=None, repr=False)

    @contextmanager
    def storing(self) -> Iterator[Session]:
        """Open a transaction that writes only while this run still owns the loop. Raises LostFence."""
        with self.ctx.sessions.begin() as session:
            loops.hold(session, self.claim)
            yield session

    def keep_lease(self) -> None:
        """Renew the claim's lease when a good part of it is over: a slow node must not cost the claim."""
        now = self.ctx.now()
        if self._renewed_at is None:
            self._renewed_at = now
        if now - self._renewed_at < loops.LEASE / 4:
            return
        with self.ctx.sessions.begin() as session:
            loops.renew(session, self.claim)
        self._renewed_at = now

    def reassess(self, session: Session, payment_ids: Iterable[str]) -> None:
        """Let payments follow from what this transaction stored about their sweeps."""
        chains = {chain.chain_id: chain for chain in self.ctx.settings.chains}
        self.delivery_ids += payments.reassess(session, set(payment_ids), chains=chains, new_id=self.ctx.new_id)

    def hold(self, intent: Intent, reason: HeldReason, *, detail: str | None = None) -> None:
        """Hold an intent, and tell its payment. Nothing happens where it is held for that reason already."""
        if intent.held_reason is reason:
            return
        with self.storing() as session:
            if not intents.hold(session, intent, reason, detail=detail):
                return
            self.reassess(session, [intent.payment_id])
        self.tell(
            "held", intent, reason=str(reason), detail=detail, level="error" if reason in _FOR_A_HUMAN else "warning"
        )

    def tell(self, outcome: str, intent: Intent, *, level: str = "info", **facts: object) -> None:
        """Log and count what became of an intent."""
        metrics.SWEEPS.labels(chain=self.chain.name, outcome=outcome).inc()
        getattr(log, level)(
            f"{intent.kind}_{outcome}",
            chain=self.chain.name,
            intent_id=intent.id,
            payment_id=intent.payment_id,
            **{name: fact for name, fact in facts.items() if fact is not None},
        )
