"""The auditor finds what is planted, in the rows and on the chain, that alone, and nothing in a healthy system."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.models import signers
from ctrip.domain.addresses import NATIVE
from ctrip.domain.payments import Payment, Status
from ctrip.services.audit import audit
from tests.devchain import ETHER, USDC, DevChain
from tests.factories import block_hash, store_sweep, store_transfer
from tests.world import World

pytestmark = pytest.mark.infra


class Paid(World):
    """A world in which things happened: payments of tokens and of coin, coin that nobody asked for, empty blocks."""

    def __init__(self, ctx: Context, anvil: DevChain, usdc: bytes) -> None:
        super().__init__(ctx, anvil)
        self.tokens = self.ask(10 * USDC, token=usdc)
        self.coin = self.ask(ETHER)
        self.waiting = self.ask(ETHER)
        anvil.pay_token(usdc, self.tokens.address, 10 * USDC)
        anvil.pay(self.tokens.address, 7)
        anvil.pay(self.coin.address, ETHER)
        anvil.mine(5)
        self.scan()
        self._sign(self.coin)
        assert self.payment(self.coin).standing.status is Status.CONFIRMED

    def sql(self, *statements: str, **values: object) -> None:
        with self.ctx.sessions.begin() as session:
            for statement in statements:
                used = {key: value for key, value in values.items() if f":{key}" in statement}
                session.execute(sa.text(statement), used)

    def found(self) -> list[str]:
        return sorted({violation.invariant for violation in audit(self.ctx)})

    def _sign(self, payment: Payment) -> None:
        """Store a sweep that is signed, but not yet broadcast."""
        open_ = {"mined_block": None, "mined_block_hash": None, "mined_tx_hash": None, "gas_cost": None}
        with self.ctx.sessions.begin() as session:
            store_sweep(
                session, payment, new_id=self.ctx.new_id, state="signed", recipient=self.chain.treasury, **open_
            )
            session.execute(signers.insert().values(chain_id=self.chain.chain_id, sender=payment.address, next_nonce=1))


@pytest.fixture
def paid(ctx: Context, anvil: DevChain, usdc: bytes) -> Paid:
    return Paid(ctx, anvil, usdc)


def test_a_healthy_system_breaks_no_invariant_and_its_audit_tells_how_far_it_is(paid: Paid) -> None:
    told: list[str] = []
    assert audit(paid.ctx, on_progress=lambda what, done, total: told.append(f"{what} {done}/{total}")) == []
    assert told == [
        "payments 3/0",
        "addresses 3/0",
        "signed transactions 1/0",
        "blocks of anvil 5/5",
        "balances on anvil 2/0",
    ]


# --- from the rows --------------------------------------------------------------------------------------------------


def _confirmed_as_settled(paid: Paid) -> None:
    """A lie that is told everywhere alike: only the facts contradict it."""
    body = "body::jsonb"
    for path, value in {"{payment,status}": "settled", "{payment,settlement}": "done"}.items():
        body = f"jsonb_set({body}, '{path}', '\"{value}\"')"
    paid.sql(
        "UPDATE payments SET status = 'settled', settlement = 'done' WHERE id = :id",
        f"UPDATE events SET type = 'payment.settled', body = {body}::json WHERE payment_id = :id"
        " AND type = 'payment.confirmed'",
        "UPDATE events SET body = jsonb_set(body::jsonb, '{payment,status}', '\"confirmed\"')::json"
        " WHERE payment_id = :id AND type = 'payment.detected'",
        "UPDATE events SET type = 'payment.confirmed' WHERE payment_id = :id AND type = 'payment.detected'",
        id=paid.coin.id,
    )


ROW_PLANTS: list[tuple[str, Callable[[Paid], None]]] = [
    (
        "1 payment_stands_where_the_facts_say",
        lambda paid: paid.sql("UPDATE payments SET completed_block = completed_block + 1"),
    ),
    (
        "1 transfer_counts_as_the_facts_say",
        lambda paid: paid.sql(
            "UPDATE transfers SET counts = false, reason = 'after_completion' WHERE payment_id = :id", id=paid.coin.id
        ),
    ),
    (
        "2 newest_event_tells_the_payment",
        lambda paid: paid.sql("UPDATE payments SET order_id = 'another' WHERE id = :id", id=paid.waiting.id),
    ),
    (
        "2 newest_event_tells_the_payment",
        lambda paid: paid.sql("UPDATE payments SET detected_at = detected_at - interval '1 day'"),
    ),
    (
        "4 address_derives_from_the_wallet",
        lambda paid: paid.sql("UPDATE deposit_addresses SET derivation_index = derivation_index + 100"),
    ),
    ("5 attempt_has_the_hash_of_its_bytes", lambda paid: paid.sql("UPDATE sweep_attempts SET raw = 'other'")),
    (
        "5 sweeps_go_to_the_treasury",
        lambda paid: paid.sql("UPDATE sweep_intents SET recipient = decode(repeat('66', 20), 'hex')"),
    ),
]


@pytest.mark.parametrize(("invariant", "plant"), ROW_PLANTS)
def test_what_the_rows_contradict_is_found(paid: Paid, invariant: str, plant: Callable[[Paid], None]) -> None:
    plant(paid)
    assert paid.found() == [invariant]


def test_a_status_is_checked_against_the_facts_and_not_against_what_was_told(paid: Paid) -> None:
    _confirmed_as_settled(paid)
    assert "1 payment_stands_where_the_facts_say" in paid.found()


def test_another_threshold_than_at_the_time_breaks_nothing(paid: Paid) -> None:
    tokens = tuple(replace(token, threshold=100 * ETHER) for token in paid.chain.tokens)
    chain = replace(paid.chain, tokens=tokens)
    ctx = replace(paid.ctx, settings=replace(paid.ctx.settings, chains=(chain,)))
    assert audit(ctx) == []


def test_secrets_are_looked_for_wherever_one_says(paid: Paid) -> None:
    texts = [("worker.log", "all is well"), ("redis: dramatiq:webhook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    (violation,) = audit(paid.ctx, texts=texts)
    assert violation.invariant == "7 no_secret_is_kept"
    assert violation.ids == ("redis: dramatiq:webhook",)
    assert "MfKQ" not in violation.sentence


# --- against the chain ----------------------------------------------------------------------------------------------


def _a_credit_out_of_nothing(paid: Paid) -> None:
    paid.anvil.set_balance(paid.tokens.address, ETHER)  # or the balance would tell, too
    head = paid.anvil.block(paid.anvil.block_number() - 4)
    assert head is not None
    with paid.ctx.sessions.begin() as session:
        store_transfer(
            session,
            paid.tokens,
            5,
            int(head["number"], 16),
            name="nothing",
            token=NATIVE,
            block_hash=bytes.fromhex(head["hash"][2:]),
            counts=False,
            reason="asset",
            status="final",
            is_announced=True,
        )


UNASKED = "WHERE reason = 'asset'"
CHAIN_PLANTS: list[tuple[str, Callable[[Paid], None]]] = [
    ("1 transfer_is_stored", lambda paid: paid.sql(f"DELETE FROM transfers {UNASKED}")),
    (
        "1 transfer_is_stored",
        lambda paid: paid.sql(f"UPDATE transfers SET status = 'orphaned' {UNASKED}"),
    ),
    ("1 credit_is_on_the_chain", _a_credit_out_of_nothing),
    (
        "1 transfer_is_stored_as_it_is",
        lambda paid: paid.sql(f"UPDATE transfers SET sender = decode(repeat('66', 20), 'hex') {UNASKED}"),
    ),
    ("1 transfer_is_stored_as_it_is", lambda paid: paid.sql(f"UPDATE transfers SET amount = 6 {UNASKED}")),
    (
        "1 transfer_is_stored_as_it_is",
        lambda paid: paid.sql(f"UPDATE transfers SET block_time = block_time - interval '1 s' {UNASKED}"),
    ),
    ("5 balance_covers_the_rows", lambda paid: paid.anvil.set_balance(paid.tokens.address, 6)),
    ("8 cursor_stands_on_a_canonical_block", lambda paid: paid.anvil.reorg(1)),
    (
        "8 range_ends_on_a_canonical_block",
        lambda paid: paid.sql(
            "DELETE FROM chain_headers WHERE number < (SELECT read_block FROM chain_cursors)",
            "INSERT INTO coverage (chain_id, token, first_block, last_block, parent_hash, last_hash, endpoint)"
            " SELECT chain_id, token, first_block, first_block, parent_hash, decode(repeat('ab', 32), 'hex'), 'b'"
            " FROM coverage LIMIT 1",
        ),
    ),
]


@pytest.mark.parametrize(("invariant", "plant"), CHAIN_PLANTS)
def test_what_the_chain_contradicts_is_found(paid: Paid, invariant: str, plant: Callable[[Paid], None]) -> None:
    plant(paid)
    if invariant == "5 balance_covers_the_rows":
        # A balance is asked for after the block that was read, so the change must be in one that was.
        paid.anvil.mine()
        paid.scan()
    assert paid.found() == [invariant]


def test_an_address_that_a_signed_transaction_is_about_to_leave_may_hold_less(paid: Paid) -> None:
    paid.anvil.set_balance(paid.coin.address, 0)
    paid.anvil.mine()
    paid.scan()
    assert paid.found() == []


def test_a_reorg_that_the_listener_follows_meanwhile_is_no_violation(paid: Paid) -> None:
    paid.anvil.reorg(2)

    def follow(what: str, *_: int) -> None:
        if what == "balances on anvil":
            paid.scan()

    assert audit(paid.ctx, on_progress=follow) == []


def test_a_chain_that_moves_while_it_is_read_is_read_again(paid: Paid) -> None:
    paid.anvil.mine(60)
    paid.scan()
    told: list[int] = []

    def move(what: str, done: int, _: int) -> None:
        if what == "blocks of anvil":
            told.append(done)
            if len(told) == 1:
                paid.anvil.reorg(30)
                paid.scan()

    assert audit(paid.ctx, on_progress=move) == []
    assert told == [50, 50, 65], "from the start, after what was read first was not the chain any more"


def test_a_chain_that_was_never_read_has_nothing_to_compare(ctx: Context) -> None:
    assert audit(ctx) == []


def test_a_process_without_clients_audits_the_rows(paid: Paid) -> None:
    paid.sql(f"DELETE FROM transfers {UNASKED}")
    assert audit(replace(paid.ctx, clients={})) == []


def test_the_ghost_of_a_block_is_found_in_rows_and_on_the_chain(paid: Paid) -> None:
    paid.sql("UPDATE transfers SET block_hash = :hash WHERE reason = 'asset'", hash=block_hash(1, "ghost"))
    assert paid.found() == ["1 credit_stands_on_a_canonical_block", "1 transfer_is_stored_as_it_is"]
