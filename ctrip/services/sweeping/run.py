"""What the steps of one tick share."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from ctrip import metrics, runs
from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database import intents, payments
from ctrip.domain.chains import Chain
from ctrip.domain.scanning import Cursor
from ctrip.domain.sweeps import HeldReason, Intent
from ctrip.log import get_logger

if TYPE_CHECKING:
    from ctrip.blockchain.signer import Signer

BATCH = 50
"""The most intents that one step of one tick looks at."""

DETAIL_CHARACTERS = 200
_FOR_A_HUMAN = (HeldReason.FOREIGN_NONCE, HeldReason.REPEATED_FAILURE, HeldReason.SIGNING_REFUSED)
log = get_logger()


@dataclass(frozen=True)
class Run:
    """One claimed tick of one chain. `cursor` is how far the listener had read when it began.

    `told` gathers what became of its intents: (outcome, facts).
    """

    loop: runs.Run
    client: ChainClient
    signer: "Signer"
    cursor: Cursor
    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    @property
    def ctx(self) -> Context:
        """The context of the run."""
        return self.loop.ctx

    @property
    def chain(self) -> Chain:
        """The chain that is swept."""
        return self.loop.chain

    def storing(self) -> AbstractContextManager[Connection]:
        """Open a transaction that writes only while this run still owns the loop. Raises LostFence."""
        return self.loop.storing()

    def keep_lease(self) -> None:
        """Renew the claim's lease when a good part of it is over. Raises LostFence."""
        self.loop.keep_lease()

    def reassess(self, session: Connection, payment_ids: Iterable[str]) -> None:
        """Let payments follow from what this transaction stored about their sweeps."""
        chains, new_id = self.ctx.settings.chains_by_id, self.ctx.new_id
        self.loop.delivery_ids += payments.reassess(session, set(payment_ids), chains=chains, new_id=new_id)

    def hold(self, intent: Intent, reason: HeldReason, *, detail: str | None = None) -> None:
        """Hold an intent, and tell its payment. Nothing happens where it is held for that reason already.

        `detail` may be a stranger's words; DETAIL_CHARACTERS of it are kept.
        """
        if intent.held_reason is reason:
            return
        detail = None if detail is None else detail[:DETAIL_CHARACTERS]
        with self.storing() as session:
            if not intents.hold(session, intent, reason, detail=detail):
                return
            self.reassess(session, [intent.payment_id])
        self.tell(
            "held", intent, reason=str(reason), detail=detail, level="error" if reason in _FOR_A_HUMAN else "warning"
        )

    def tell(self, outcome: str, intent: Intent, *, level: str = "info", **facts: object) -> None:
        """Log and count what became of an intent."""
        known = {name: fact for name, fact in facts.items() if fact is not None}
        known = {"intent_id": intent.id, "payment_id": intent.payment_id} | known
        metrics.SWEEPS.labels(chain=self.chain.name, outcome=outcome).inc()
        getattr(log, level)(f"{intent.kind}_{outcome}", chain=self.chain.name, **known)
        self.told.append((outcome, {"kind": str(intent.kind)} | known))


def stands(read: Mapping[int, bytes], block: int, block_hash: bytes) -> bool:
    """True where a block is the one that was read at its height, or older than all whose hashes are kept.

    A reorg that takes one of those stops the chain.
    """
    return read[block] == block_hash if block in read else block < min(read)
