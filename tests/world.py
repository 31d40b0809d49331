"""A payment's world in a test's hands: listener and sweeper called directly, and what became of it all."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import creating, cursors, events, loops, payments, transfers
from ctrip.database.models import coverage as coverage_rows
from ctrip.database.models import events as event_rows
from ctrip.database.models import loops as loop_rows
from ctrip.database.models import merchants, webhook_deliveries
from ctrip.database.models import payments as payment_rows
from ctrip.database.models import transfers as transfer_rows
from ctrip.domain.addresses import NATIVE
from ctrip.domain.finality import Finality
from ctrip.domain.ids import Prefix
from ctrip.domain.loops import LoopKind
from ctrip.domain.payments import Payment
from ctrip.domain.prices import Asked
from ctrip.domain.scanning import Cursor
from ctrip.domain.transfers import Transfer, TransferStatus
from ctrip.services.scanning import scan_chain
from ctrip.services.sweeping import sweep_chain
from tests.devchain import ETHER, DevChain
from tests.factories import changed

STEPS = 60
"""More ticks than any story here needs: a loop that has not come to rest by then is stuck."""


class World:
    """One chain, one merchant; time passes only where blocks are mined.

    Each world has deposit addresses of its own: no two tests sign the same transaction, so that nothing that the dev
    chain remembers of one, under a hash, can be taken for another's.
    """

    _worlds = itertools.count(1)

    def __init__(self, ctx: Context, anvil: DevChain) -> None:
        self.ctx = ctx
        self.anvil = anvil
        self.chain = ctx.settings.chains[0]
        with ctx.sessions.begin() as session:
            self.merchant_id = session.scalars(sa.select(merchants.c.id)).first() or ""
            session.execute(sa.text("SELECT setval('deposit_index', :index)"), {"index": 1000 * next(self._worlds)})
            for kind in LoopKind:
                loops.ensure(session, kind=kind, chain_id=self.chain.chain_id, every=timedelta(0))
        anvil.mine()  # the head is as old as the session; deadlines are told by its time
        self.scan()

    # --- what people do ---------------------------------------------------------------------------------------------

    def ask(self, amount: int, *, token: bytes = NATIVE, expires_in_s: int = 3600, **fields: Any) -> Payment:
        """Store a payment as the API does, with deadlines by the chain's clock."""
        now = datetime.fromtimestamp(self.anvil.head_time(), UTC)
        asset = self.chain.token_at(token)
        assert asset is not None and self.ctx.wallet is not None
        with self.ctx.sessions.begin() as session:
            index = self.ctx.indexes.take(self.ctx.sessions)
            payment = Payment(
                id=self.ctx.new_id(Prefix.PAYMENT),
                merchant_id=self.merchant_id,
                asked=Asked(
                    chain_id=self.chain.chain_id,
                    chain=self.chain.name,
                    token=token,
                    symbol=asset.symbol,
                    decimals=asset.decimals,
                    amount=amount,
                    required=self.chain.confirmations,
                    finality=Finality.CONFIRMATIONS,
                ),
                tolerance_bps=0,
                address=self.ctx.wallet.address(index),
                order_id=None,
                customer_email=None,
                metadata={},
                webhook_url="http://127.0.0.1:9/hook",
                created_at=now,
                expires_at=now + timedelta(seconds=expires_in_s),
            )
            payment = changed(payment, **fields)
            creating.add(
                session,
                payment,
                wallet_fingerprint=self.ctx.wallet.fingerprint,
                index=index,
                new_id=self.ctx.new_id,
            )
        return payment

    def paid(self, amount: int = ETHER, *, token: bytes = NATIVE) -> Payment:
        """Ask for an amount, pay it in one transfer, and let that become final."""
        asked = self.ask(amount, token=token)
        if token == NATIVE:
            self.anvil.pay(asked.address, amount)
        else:
            self.anvil.pay_token(token, asked.address, amount)
        self.anvil.mine(self.chain.confirmations)
        self.scan()
        return asked

    def scan(self) -> None:
        """Let the listener read to the head."""
        for _ in range(STEPS):
            self._due()
            scan_chain(self.ctx, self.chain.chain_id)
            cursor = self.cursor()
            if cursor.stopped_reason or cursor.read_block >= self.anvil.block_number():
                # Once more at the head: a block at the same height may have been replaced.
                self._due()
                scan_chain(self.ctx, self.chain.chain_id)
                return
        raise AssertionError("the listener does not reach the head")

    def sweep(self) -> None:
        """Let the sweeper make one tick."""
        self._due()
        sweep_chain(self.ctx, self.chain.chain_id)

    def live(self, blocks: int, *, until: Callable[[], bool] = lambda: False) -> None:
        """Let this many blocks pass, or fewer where `until` says so; listener and sweeper work after each."""
        for _ in range(blocks):
            if until():
                return
            self.anvil.mine()
            self._due()
            scan_chain(self.ctx, self.chain.chain_id)
            sweep_chain(self.ctx, self.chain.chain_id)

    def reorg(self, depth: int, *again: tuple[bytes, int]) -> None:
        """Replace the newest blocks; what was in them is gone, save `again`: (raw, offset of its block)."""
        self.anvil.reorg(depth, again)

    # --- what became of it ------------------------------------------------------------------------------------------

    def payment(self, asked: Payment) -> Payment:
        """The payment as it is stored now."""
        with self.ctx.sessions.begin() as session:
            found = payments.find(session, asked.id)
        assert found is not None
        return found

    def transfers(self, asked: Payment) -> list[Transfer]:
        """Its canonical transfers."""
        with self.ctx.sessions.begin() as session:
            found = transfers.of_payments(session, [asked.id])[asked.id]
        return [transfer for transfer in found if transfer.status is not TransferStatus.ORPHANED]

    def rows(self) -> list[dict[str, Any]]:
        """All that is stored of payments, and of what was read: the same again where nothing came of something."""
        tables = (payment_rows, transfer_rows, event_rows, coverage_rows)
        with self.ctx.sessions.begin() as session:
            return [
                dict(row)
                for table in tables
                for row in session.execute(sa.select(table).order_by(table.c.id)).mappings()
            ]

    def events(self, asked: Payment) -> list[str]:
        """The types of its events, by version, without the subject where that is the payment itself."""
        with self.ctx.sessions.begin() as session:
            found = events.of_payment(session, asked.id, limit=100)
        assert [event.version for event in found] == list(range(1, len(found) + 1)), "versions have gaps"
        assert self.payment(asked).version == len(found)
        return [str(event.type).removeprefix("payment.") for event in found]

    def deliveries(self, asked: Payment) -> int:
        """How many deliveries it is owed."""
        query = sa.select(sa.func.count()).where(webhook_deliveries.c.payment_id == asked.id)
        with self.ctx.sessions.begin() as session:
            return session.scalar(query) or 0

    def cursor(self) -> Cursor:
        """How far the chain was read."""
        with self.ctx.sessions.begin() as session:
            found = cursors.find(session, self.chain.chain_id)
        assert found is not None
        return found

    def stopped_reason(self) -> str | None:
        """Why the chain is stopped, if it is."""
        return self.cursor().stopped_reason

    def treasury(self, token: bytes = NATIVE) -> int:
        """What the treasury holds."""
        return self.ctx.clients[self.chain.chain_id].balances([(self.chain.treasury, token)])[0]

    def _due(self) -> None:
        with self.ctx.sessions.begin() as session:
            session.execute(sa.update(loop_rows).values(next_run_at=sa.func.now(), lease_until=None))
