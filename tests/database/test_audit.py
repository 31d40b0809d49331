"""Each invariant that SQL can say finds the violation planted for it, that one alone, and nothing in healthy rows."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.blockchain.mnemonic import holds_phrase
from ctrip.database import audit, payments
from ctrip.database.models import (
    audit_log,
    dead_letters,
    emails,
    idempotency_keys,
    jobs,
    merchants,
    metadata,
    signers,
    sweep_attempts,
    webhook_attempts,
    webhook_deliveries,
    webhook_endpoints,
)
from ctrip.database.work import JOB_DIED
from ctrip.domain.addresses import NATIVE
from ctrip.domain.audit import Violation
from ctrip.domain.payments import Payment
from ctrip.domain.transfers import Transfer
from ctrip.services.audit import find_secrets
from tests.factories import (
    CHAIN_ID,
    NOON,
    OTHER_TOKEN,
    block_hash,
    block_time,
    header,
    ids,
    make_chain,
    read_to,
    store_payment,
    store_sweep,
    store_transfer,
)

pytestmark = pytest.mark.infra

GAS_WALLET = b"\x61" * 20
new_id = ids()


@dataclass
class World:
    """Rows that are in order: a settled payment, one that was paid in part and expired, one that got too much."""

    session: Connection
    settled: Payment
    partial: Payment
    over: Payment
    unexpected: Transfer
    head: int = 40

    def sql(self, *statements: str, **values: Any) -> None:
        for statement in statements:
            self.session.execute(
                sa.text(statement), {key: value for key, value in values.items() if f":{key}" in statement}
            )

    def violations(self) -> list[Violation]:
        return audit.broken(self.session) + audit.kept_secrets(self.session, is_phrase=holds_phrase)

    def broken(self) -> list[str]:
        return sorted({violation.invariant for violation in self.violations()})


@pytest.fixture(scope="module")
def rows(engine: sa.Engine) -> Iterator[World]:
    """Healthy rows in a transaction that is never committed: no other test sees them, or what is planted into them."""
    with engine.connect() as session:
        tables = ", ".join(metadata.tables)
        session.execute(sa.text(f"TRUNCATE {tables}; ALTER SEQUENCE deposit_index RESTART"))
        yield _healthy(session)
        session.rollback()


@pytest.fixture
def world(rows: World) -> Iterator[World]:
    """The healthy rows; what a test does to them is undone after it."""
    before = rows.session.begin_nested()
    yield rows
    before.rollback()


def _healthy(session: Connection) -> World:
    settled = store_payment(session, new_id=new_id, webhook_url="https://shop.example/hooks")
    partial = store_payment(session, new_id=new_id, token=NATIVE, symbol="ETH", decimals=18, expires_at=block_time(20))
    over = store_payment(session, new_id=new_id)
    world = World(session, settled, partial, over, _pay(session, settled, partial, over))
    for head in (10, 13, 20, world.head):
        read_to(session, head)
        if head == 20:
            _sweep(session, settled)
        payments.reassess(session, [settled.id, partial.id, over.id], chains={CHAIN_ID: make_chain()}, new_id=new_id)
    _deliver(session)
    _owe_more(session, settled)
    answer = {"status": 201, "response": f'{{"id": "{over.id}", "object": "payment"}}', "request_hash": b"\x01" * 32}
    key = {"merchant_id": over.merchant_id, "route": "POST /api/v1/payments", "key": "once"}
    session.execute(idempotency_keys.insert().values(**key, **answer))
    return world


def _pay(session: Connection, settled: Payment, partial: Payment, over: Payment) -> Transfer:
    store_transfer(session, settled, 1000, 10)
    store_transfer(session, partial, 400, 11)
    store_transfer(session, over, 1000, 12)
    store_transfer(session, over, 500, 13)
    store_transfer(session, over, 9, 14, status="orphaned", block_hash=block_hash(14, "gone"))
    return store_transfer(session, over, 7, 15, token=OTHER_TOKEN, symbol="DAI", name="unexpected")


def _sweep(session: Connection, settled: Payment) -> None:
    """A top-up and the sweep that it is for, which spends all of it, and another that is planned."""
    topup = {"kind": "topup", "sender": GAS_WALLET, "recipient": settled.address, "amount": 50, "gas_cost": 21}
    store_sweep(session, settled, new_id=new_id, mined_block=16, **topup)
    store_transfer(session, settled, 50, 16, token=NATIVE, is_own=True, counts=False, reason="own_transaction")
    store_sweep(session, settled, new_id=new_id, mined_block=19, gas_cost=50)
    nothing = {"nonce": None, "mined_block": None, "mined_block_hash": None, "mined_tx_hash": None, "amount": None}
    planned = store_sweep(session, settled, new_id=new_id, state="planned", gas_cost=None, **nothing)
    session.execute(sweep_attempts.delete().where(sweep_attempts.c.intent_id == planned))
    for sender in (GAS_WALLET, settled.address):
        session.execute(signers.insert().values(chain_id=CHAIN_ID, sender=sender, next_nonce=1))


def _deliver(session: Connection) -> None:
    """One delivery of each state: delivered, pending, dead, failed."""
    found = session.execute(sa.select(webhook_deliveries).order_by(webhook_deliveries.c.id)).all()
    states: list[dict[str, Any]] = [
        {"status": "delivered", "delivered_at": NOON},
        {},
        {"status": "dead", "dead_reason": "schedule"},
        {"status": "failed"},
    ]
    for delivery, state in zip(found, states, strict=True):
        if not state:
            continue
        done = sa.update(webhook_deliveries).where(webhook_deliveries.c.id == delivery.id)
        session.execute(done.values(next_attempt_at=None, attempts=1, **state))
        code = 204 if "delivered_at" in state else 500
        tried = {"number": 1, "at": NOON, "status_code": code, "duration_ms": 5, "response": "thanks"}
        session.execute(webhook_attempts.insert().values(delivery_id=delivery.id, **tried))
        if code == 500:
            _bury(session, delivery.id)


def _owe_more(session: Connection, settled: Payment) -> None:
    """A delivery to an endpoint, a custom webhook, e-mails and jobs; of each kind one that died and was purged."""
    of = {"merchant_id": settled.merchant_id, "url": "https://a.example/", "origin": "https://a.example:443"}
    session.execute(merchants.insert().values(id="mer_other", name="Another shop", webhook_secret=b"encrypted"))
    endpoint = {"id": "whe_1", "events": ["*"], "status": "enabled", "secret": b"encrypted"}
    session.execute(webhook_endpoints.insert().values(of | endpoint))
    event_id = session.scalar(sa.text("SELECT max(id) FROM events WHERE payment_id = :id"), {"id": settled.id})
    pending = {"status": "pending", "next_attempt_at": NOON}
    told = {"id": "whd_endpoint", "event_id": event_id, "endpoint_id": "whe_1", "payment_id": settled.id}
    session.execute(webhook_deliveries.insert().values(of | pending | told))
    custom = {"id": "whd_custom", "payload": '{"any": "thing"}', "status": "failed", "merchant_id": None}
    session.execute(webhook_deliveries.insert().values(of | custom))
    mail = {"kind": "payment_confirmed_buyer", "recipient": "b@a.example", "payment_id": settled.id}
    said = {"subject": "Paid", "text": "You have paid.", "html": "<p>You have paid.</p>"}
    session.execute(emails.insert().values(id="eml_dead", status="dead", **mail | said))
    session.execute(emails.insert().values(id="eml_due", kind="dead_letters", **said | pending))
    job = {"kind": "scan-now", "params": {"chain": "anvil"}, "requested_by": "key_1", "ended_at": NOON}
    session.execute(jobs.insert().values(id="job_refused", status="failed", error="no such chain", **job))
    session.execute(jobs.insert().values(id="job_died", status="failed", error=JOB_DIED, **job))
    for row_id in ("whd_custom", "eml_dead", "job_died"):
        _bury(session, row_id, purged_at=NOON)
    deed = {"id": "aud_1", "by": "key_1", "action": "dead_letters.purge", "detail": {"done": 3}}
    session.execute(audit_log.insert().values(deed))


def _bury(session: Connection, row_id: str, **changes: Any) -> None:
    letter = {"id": f"dlt_{row_id}", "queue": "webhook", "actor": "send_webhook", "reason": "given_up"}
    of = {"message": "{}", "message_id": row_id, "row_id": row_id, "first_at": NOON}
    session.execute(dead_letters.insert().values(letter | of | changes))


def test_healthy_rows_break_no_invariant(world: World) -> None:
    assert world.violations() == []


# --- one violation each ---------------------------------------------------------------------------------------------

Plant = Callable[[World], None]
TO_ENDPOINT = "WHERE endpoint_id IS NOT NULL"
CLOSED = "status = 'dead', dead_reason = 'endpoint_disabled', next_attempt_at = NULL"
OF_SECOND = "WHERE status = 'pending' AND endpoint_id IS NULL"
GONE_AT_THIRD = (
    "UPDATE webhook_attempts SET status_code = 410"
    " WHERE delivery_id = (SELECT id FROM webhook_deliveries WHERE dead_reason = 'schedule')"
)
DELIVERIES = "WHERE starts_with(row_id, 'whd_')"


def _sql(*statements: str, **values: Any) -> Plant:
    return lambda world: world.sql(*statements, **values)


def _on(name: str, change: str) -> Plant:
    return lambda world: world.sql(f"UPDATE payments SET {change} WHERE id = :id", id=getattr(world, name).id)


def _on_unexpected(change: str) -> Plant:
    return lambda world: world.sql(f"UPDATE transfers SET {change} WHERE id = :id", id=world.unexpected.id)


def _on_sweep(change: str) -> Plant:
    return _sql(f"UPDATE sweep_intents SET {change} WHERE kind = 'sweep' AND state = 'done'")


def _event(name: str, version: int, act: str) -> Plant:
    where = f"{act} WHERE payment_id = :id AND version = {version}"
    return lambda world: world.sql(where, id=getattr(world, name).id)


def _body(path: str, value: str) -> str:
    return f"UPDATE events SET body = jsonb_set(body::jsonb, '{path}', '{value}')::json"


def _same_transfer_in_another_block(world: World) -> None:
    world.sql("DROP INDEX uq_transfers_final")
    foreign = {"token": OTHER_TOKEN, "symbol": "DAI", "counts": False, "reason": "asset", "status": "final"}
    store_transfer(world.session, world.over, 7, 17, name="unexpected", id="trf_twice", **foreign)


def _a_transfer_that_nobody_assessed(world: World) -> None:
    store_transfer(world.session, world.over, 5, world.head - 1, counts=False, reason="after_completion")


def _two_payments_with_one_address(world: World) -> None:
    world.sql(
        "ALTER TABLE payments DROP CONSTRAINT uq_payments_address",
        "ALTER TABLE deposit_addresses DROP CONSTRAINT pk_deposit_addresses",
    )
    store_payment(world.session, new_id=new_id, address=world.partial.address)


def _one_nonce_for_two(world: World) -> None:
    world.sql("ALTER TABLE sweep_intents DROP CONSTRAINT uq_sweep_intents_chain_id_sender_nonce")
    store_sweep(world.session, world.settled, new_id=new_id, amount=0, mined_block=19)


def _a_signature_without_a_nonce(world: World) -> None:
    intent_id = world.session.scalar(sa.text("SELECT id FROM sweep_intents WHERE state = 'planned'"))
    attempt = {"raw": b"raw", "tx_hash": b"\x05" * 32, "amount": 1, "gas_limit": 1, "max_fee": 1}
    world.session.execute(sweep_attempts.insert().values(intent_id=intent_id, number=1, **attempt))


def _a_key_used_twice(world: World) -> None:
    world.sql("ALTER TABLE idempotency_keys DROP CONSTRAINT pk_idempotency_keys")
    world.sql(
        "INSERT INTO idempotency_keys SELECT merchant_id, route, key, request_hash, status, "
        """'{"id": "' || :other || '", "object": "payment"}' FROM idempotency_keys""",
        other=world.partial.id,
    )


def _a_transfer_above_the_cursor(world: World) -> None:
    foreign = {"token": OTHER_TOKEN, "counts": False, "reason": "asset"}
    store_transfer(world.session, world.over, 7, world.head + 1, name="ahead", **foreign)


def _a_range_that_does_not_go_on(world: World) -> None:
    """Below all headers that are kept, where nothing but the range before it tells what its first parent is."""
    world.sql(
        "DELETE FROM chain_headers WHERE number <= 20",
        "INSERT INTO coverage (chain_id, token, first_block, last_block, parent_hash, last_hash, endpoint)"
        " SELECT chain_id, token, 11, 40, last_hash, last_hash, 'b' FROM coverage",
        "UPDATE coverage SET last_block = 10 WHERE first_block < 11",
        "UPDATE coverage SET last_hash = decode(repeat('ab', 32), 'hex') WHERE last_block = 10",
    )


def _a_header_above_the_cursor(world: World) -> None:
    tip = header(world.head + 1)
    world.sql(
        "INSERT INTO chain_headers VALUES (:chain, :number, :hash, :parent, now())",
        chain=CHAIN_ID,
        number=tip.number,
        hash=tip.hash,
        parent=tip.parent_hash,
    )


def _forgotten(died_before: str) -> Plant:
    """All letters are gone, and the scheduler told of those that had died before a moment."""
    told = f"""'{{"deleted": 9, "open": 9, "died_before": "{died_before}"}}'"""
    return _sql(
        "DELETE FROM dead_letters",
        f"INSERT INTO audit_log (id, by, action, detail) VALUES ('aud_2', 'scheduler', 'dead_letters.forget', {told})",
    )


CHOSEN = (
    "price = {}, currency = 'EUR', assets = '[{{}}]', chosen_at = now(), counts_after = '{}',"
    ' quote = \'{{"rate": "1"}}\''
)
PLANTS: list[tuple[str, Plant]] = [
    ("1 transfer_is_final_once", _same_transfer_in_another_block),
    ("1 credit_stands_on_a_canonical_block", _on_unexpected("block_hash = decode(repeat('ab', 32), 'hex')")),
    ("1 transfer_belongs_to_the_payment_of_its_address", _on_unexpected("recipient = decode(repeat('ab', 20), 'hex')")),
    ("1 finality_follows_the_cursor", _on_unexpected("status = 'seen'")),
    ("1 finality_follows_the_cursor", _on_unexpected("required = 30")),
    ("1 finality_follows_the_cursor", _on_unexpected("is_verified = false")),
    ("1 finality_follows_the_cursor", _on_unexpected("finality = 'finalized'")),
    ("1 received_is_the_sum_of_the_transfers", _on("over", "received = received + 1")),
    ("1 received_is_the_sum_of_the_transfers", _a_transfer_that_nobody_assessed),
    ("1 confirmed_is_the_sum_of_the_final_transfers", _on("over", "confirmed = confirmed - 1")),
    ("1 money_counts_from_the_choice_on", _on("over", CHOSEN.format("0.001", "infinity"))),
    ("1 amount_is_worth_the_price", _on("over", CHOSEN.format("0.001001", "epoch"))),
    ("1 amount_is_worth_the_price", _on("over", CHOSEN.format("0.000999", "epoch"))),
    ("2 versions_have_no_gaps", _on("over", "version = version + 1")),
    ("2 versions_have_no_gaps", _event("partial", 2, "DELETE FROM events")),
    ("2 versions_have_no_gaps", _event("partial", 3, "DELETE FROM events")),
    ("2 first_event_is_the_creation", _event("partial", 1, "UPDATE events SET type = 'payment.updated'")),
    ("2 first_event_is_the_creation", _event("partial", 2, "UPDATE events SET type = 'payment.created'")),
    ("2 event_tells_of_its_own_version", _event("partial", 2, _body("{payment,version}", "3"))),
    ("2 event_tells_of_its_own_version", _event("partial", 2, _body("{payment,id}", '"pay_of_others"'))),
    ("2 statuses_follow_the_arrows", _event("partial", 2, _body("{payment,status}", '"settled"'))),
    ("2 statuses_follow_the_arrows", _event("partial", 2, _body("{previous_status}", '"settled"'))),
    ("2 event_is_of_the_status_it_tells", _event("partial", 2, "UPDATE events SET type = 'payment.detected'")),
    ("3 event_owed_has_a_delivery", _sql("DELETE FROM webhook_deliveries WHERE status = 'pending'")),
    ("3 event_owed_has_a_delivery", _sql("UPDATE webhook_deliveries SET url = 'elsewhere' WHERE status = 'pending'")),
    (
        "3 event_owed_has_a_delivery",
        _sql("UPDATE webhook_deliveries SET endpoint_id = 'whe_1', url = 'https://shop.example/hooks' " + OF_SECOND),
    ),
    ("3 event_owed_has_a_delivery", _sql(GONE_AT_THIRD, f"DELETE FROM webhook_deliveries {OF_SECOND}")),
    ("3 delivery_is_made_scheduled_or_a_dead_letter", _sql("UPDATE webhook_attempts SET status_code = 500")),
    ("3 delivery_is_made_scheduled_or_a_dead_letter", _sql(f"DELETE FROM dead_letters {DELIVERIES}")),
    (
        "3 delivery_is_made_scheduled_or_a_dead_letter",
        _sql(f"UPDATE dead_letters SET purged_at = NULL, replayed_at = now() {DELIVERIES}"),
    ),
    (
        "3 delivery_is_made_scheduled_or_a_dead_letter",
        _sql(f"UPDATE webhook_deliveries SET {CLOSED}, attempts = 1, last_status_code = 410 {TO_ENDPOINT}"),
    ),
    (
        "3 delivery_is_made_scheduled_or_a_dead_letter",
        _sql(f"UPDATE webhook_deliveries SET {CLOSED}, endpoint_id = NULL {TO_ENDPOINT}"),
    ),
    ("3 delivery_is_its_events_own", _sql("UPDATE webhook_endpoints SET merchant_id = 'mer_other'")),
    ("3 delivery_is_its_events_own", _sql("UPDATE webhook_deliveries SET payment_id = NULL WHERE id = 'whd_endpoint'")),
    (
        "3 delivery_is_its_events_own",
        _sql("UPDATE webhook_deliveries SET merchant_id = 'mer_other' WHERE endpoint_id IS NULL"),
    ),
    ("3 email_is_sent_scheduled_or_a_dead_letter", _sql("DELETE FROM dead_letters WHERE row_id = 'eml_dead'")),
    ("3 email_is_sent_scheduled_or_a_dead_letter", _sql("UPDATE emails SET status = 'failed', next_attempt_at = NULL")),
    ("3 job_that_died_is_a_dead_letter", _sql("DELETE FROM dead_letters WHERE row_id = 'job_died'")),
    (
        "3 delivery_is_made_scheduled_or_a_dead_letter",
        _sql(
            "ALTER TABLE webhook_deliveries DROP CONSTRAINT ck_webhook_deliveries_pending_is_scheduled",
            "UPDATE webhook_deliveries SET next_attempt_at = NULL",
        ),
    ),
    ("4 address_belongs_to_one_payment", _two_payments_with_one_address),
    (
        "4 index_is_used_once",
        _sql(
            "ALTER TABLE deposit_addresses DROP CONSTRAINT uq_deposit_addresses_wallet_fingerprint_derivation_index",
            "UPDATE deposit_addresses SET derivation_index = 7",
        ),
    ),
    ("4 payment_has_the_address_issued_for_it", _sql("DELETE FROM deposit_addresses WHERE derivation_index = 0")),
    (
        "4 payment_has_the_address_issued_for_it",
        _sql("UPDATE deposit_addresses SET address = decode(repeat('ab', 20), 'hex') WHERE derivation_index = 0"),
    ),
    ("5 no_more_was_swept_than_came", _on_sweep("amount = amount + 1")),
    ("5 no_more_was_swept_than_came", _on_sweep("gas_cost = gas_cost + 1")),
    ("5 nonce_is_used_once", _one_nonce_for_two),
    ("5 nonce_and_signature_are_stored_together", _a_signature_without_a_nonce),
    ("5 nonce_was_taken_from_its_signer", _sql("UPDATE signers SET next_nonce = 0")),
    ("5 nonce_was_taken_from_its_signer", _sql("DELETE FROM signers")),
    ("5 what_was_mined_was_stored", _on_sweep("mined_tx_hash = decode(repeat('ab', 32), 'hex')")),
    ("6 key_made_one_object", _a_key_used_twice),
    (
        "6 object_was_made_by_one_key",
        _sql(
            "INSERT INTO idempotency_keys SELECT merchant_id, route, 'twice', request_hash, status, response"
            " FROM idempotency_keys"
        ),
    ),
    (
        "6 stored_answer_is_of_an_object_that_exists",
        _sql("""UPDATE idempotency_keys SET response = '{"id": "pay_nothing", "object": "payment"}'"""),
    ),
    (
        "8 cursor_stands_on_a_stored_header",
        _sql("UPDATE chain_cursors SET read_hash = decode(repeat('ab', 32), 'hex')"),
    ),
    ("8 cursor_stands_on_a_stored_header", _sql("DELETE FROM chain_headers WHERE number >= 40")),
    ("8 headers_are_one_chain_up_to_the_cursor", _sql("DELETE FROM chain_headers WHERE number = 30")),
    (
        "8 headers_are_one_chain_up_to_the_cursor",
        _sql("UPDATE chain_headers SET parent_hash = decode(repeat('ab', 32), 'hex') WHERE number = 30"),
    ),
    ("8 headers_are_one_chain_up_to_the_cursor", _a_header_above_the_cursor),
    ("8 transfers_are_of_blocks_that_were_read", _a_transfer_above_the_cursor),
    (
        "8 transfers_are_of_blocks_that_were_read",
        _sql("DELETE FROM coverage WHERE token <> decode(repeat('00', 20), 'hex')"),
    ),
    (
        "8 cursor_passed_no_block_that_was_not_read",
        _sql("UPDATE coverage SET first_block = 5, parent_hash = decode(repeat('00', 32), 'hex')"),
    ),
    ("8 cursor_passed_no_block_that_was_not_read", _sql("UPDATE chain_cursors SET start_block = -1")),
    ("8 ranges_that_were_read_are_linked", _sql("UPDATE coverage SET last_hash = decode(repeat('ab', 32), 'hex')")),
    ("8 ranges_that_were_read_are_linked", _a_range_that_does_not_go_on),
]

SECRETS = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "sk_01ARZ3NDEKTSV4RR_kJ2vYhT5mZqWxN8cRbLs",
    "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi",
    "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318",
    "legal winner thank year wave sausage worth useful legal winner thank yellow",
]
KEEPERS = [
    "UPDATE events SET body = jsonb_set(body::jsonb, '{payment,customer_email}', to_jsonb('me ' || :secret))::json",
    "UPDATE dead_letters SET message = :secret",
    "UPDATE dead_letters SET exception = 'it said ' || :secret",
    "UPDATE dead_letters SET traceback = :secret",
    "UPDATE webhook_attempts SET response = 'hello ' || :secret || ' you'",
    "UPDATE webhook_attempts SET status_code = NULL, response = NULL, error = :secret WHERE status_code = 500",
    "UPDATE idempotency_keys SET response = jsonb_set(response::jsonb, '{webhook_secret}', to_jsonb(:secret))::text",
    "UPDATE webhook_deliveries SET payload = to_jsonb(:secret) WHERE payload IS NOT NULL",
    "UPDATE emails SET subject = 'for ' || :secret",
    "UPDATE emails SET text = :secret",
    "UPDATE emails SET html = '<p>' || :secret || '</p>'",
    "UPDATE jobs SET params = jsonb_build_object('a', :secret)",
    "UPDATE jobs SET progress = jsonb_build_object('a', :secret)",
    "UPDATE jobs SET status = 'done', error = NULL, result = jsonb_build_object('a', :secret)",
    "UPDATE jobs SET error = 'it said ' || :secret WHERE error <> 'x'",
    "INSERT INTO audit_log (id, by, action, detail) VALUES ('aud_2', 'me', 'a', jsonb_build_object('a', :secret))",
    "INSERT INTO audit_log (id, by, action, target, detail) VALUES ('aud_2', 'me', 'a', :secret, '{}')",
    "INSERT INTO rate_sources VALUES ('kraken', now(), now(), 'it said ' || :secret)",
]


@pytest.mark.parametrize(("invariant", "plant"), PLANTS)
def test_a_planted_violation_is_found_and_nothing_else(world: World, invariant: str, plant: Plant) -> None:
    plant(world)
    assert world.broken() == [invariant]


@pytest.mark.parametrize(
    ("statement", "secret"), [(keeper, SECRETS[0]) for keeper in KEEPERS] + [(KEEPERS[1], secret) for secret in SECRETS]
)
def test_a_secret_is_found_wherever_it_was_kept(world: World, statement: str, secret: str) -> None:
    world.sql(statement.replace(":secret", "CAST(:secret AS text)"), secret=secret)
    assert world.broken() == ["7 no_secret_is_kept"]
    assert all(secret not in violation.sentence for violation in world.violations())
    assert len(list(find_secrets([("a log", f"and {secret}.")]))) == 1, "Python finds the same"


@pytest.mark.parametrize(
    "text",
    [
        "0x" + "4c0883a6" * 8,  # a hash
        "4c0883a6" * 20,  # signed bytes
        "4c0883a6-9102-937d-6231-471b5dbb6204",
        "the node did not answer in time and so nothing is known of what became of the request",
        "whsec_ and sk_ are prefixes, task_id_of_something_long is no key",
        "word that about able above abandon ability which could stand here among ordinary prose",
    ],
)
def test_what_is_no_secret_is_left_alone(world: World, text: str) -> None:
    world.sql("UPDATE dead_letters SET exception = :text, traceback = :text", text=text)
    world.sql("UPDATE webhook_attempts SET response = :text", text=text)
    assert world.broken() == []
    assert list(find_secrets([("a log", text)])) == []


KEY = "0x" + SECRETS[3]


@pytest.mark.parametrize("keeper", [KEEPERS[0], KEEPERS[1], KEEPERS[5], KEEPERS[6]])
def test_a_key_written_like_a_hash_is_found_where_no_hash_may_stand(world: World, keeper: str) -> None:
    world.sql(keeper.replace(":secret", "CAST(:secret AS text)"), secret=KEY)
    assert world.broken() == ["7 no_secret_is_kept"]


def test_the_hashes_of_an_event_are_no_secrets(world: World) -> None:
    transfer = f'{{"tx_hash": "{KEY}", "block_hash": "{KEY}"}}'
    world.sql(
        "UPDATE events SET body = (body::jsonb || jsonb_build_object('transfer', CAST(:of AS jsonb)))::json",
        of=transfer,
    )
    assert world.broken() == []


def test_what_a_receiver_answers_may_be_any_prose(world: World) -> None:
    world.sql("UPDATE webhook_attempts SET response = :text", text=SECRETS[4])
    assert world.broken() == []


def test_what_a_merchant_wrote_into_a_payment_may_look_like_anything(world: World) -> None:
    body = "jsonb_set(body::jsonb, '{payment,metadata}', to_jsonb(CAST(:text AS text)))::json"
    world.sql(f"UPDATE events SET body = {body}", text=SECRETS[3])
    assert world.broken() == []


@pytest.mark.parametrize("last", ["attempts = 0", "attempts = 2, last_status_code = 500"])
def test_what_ended_with_an_endpoint_that_its_owner_closed_has_no_letter(world: World, last: str) -> None:
    world.sql(f"UPDATE webhook_deliveries SET {CLOSED}, {last} {TO_ENDPOINT}")
    assert world.broken() == []


def test_what_came_after_a_payments_own_url_had_answered_410_is_not_owed_to_it(world: World) -> None:
    fourth = "SELECT id FROM webhook_deliveries WHERE status = 'failed' AND payload IS NULL"
    world.sql(f"DELETE FROM webhook_attempts WHERE delivery_id = ({fourth})")
    world.sql(f"DELETE FROM webhook_deliveries WHERE id = ({fourth})")
    assert world.broken() == ["3 event_owed_has_a_delivery"]
    world.sql(GONE_AT_THIRD)
    assert world.broken() == []


def test_what_retention_has_forgotten_is_explained_by_the_audit_log_alone(world: World) -> None:
    _forgotten("2999-01-01T00:00:00Z")(world)
    assert world.broken() == []


def test_what_died_after_retention_last_forgot_is_not_explained_by_it(world: World) -> None:
    _forgotten("2000-01-01T00:00:00Z")(world)
    assert world.broken() == [
        "3 delivery_is_made_scheduled_or_a_dead_letter",
        "3 email_is_sent_scheduled_or_a_dead_letter",
        "3 job_that_died_is_a_dead_letter",
    ]


def test_what_a_merchant_called_an_order_may_look_like_anything_in_an_email_too(world: World) -> None:
    world.sql("UPDATE emails SET text = 'order ' || :text", text=SECRETS[3])
    assert world.broken() == ["7 no_secret_is_kept"]
    body = "jsonb_set(body::jsonb, '{payment,order_id}', to_jsonb(CAST(:text AS text)))::json"
    world.sql("UPDATE payments SET order_id = :text", f"UPDATE events SET body = {body}", text=SECRETS[3])
    world.sql("DELETE FROM emails WHERE payment_id IS NULL")
    assert world.broken() == []


def test_a_custom_webhook_and_its_job_may_hold_prose_and_hashes(world: World) -> None:
    world.sql(
        "UPDATE webhook_deliveries SET payload = to_jsonb(CAST(:text AS text)) WHERE payload IS NOT NULL",
        text=SECRETS[4],
    )
    params = "jsonb_build_object('payload', CAST(:text AS text), 'hash', '0x' || repeat('4c0883a6', 8))"
    world.sql(f"UPDATE jobs SET kind = 'custom-webhook', params = {params}", text=SECRETS[4])
    assert world.broken() == []


def test_each_invariant_in_the_file_is_proven_here() -> None:
    names = [name for name, _ in audit.invariants()]
    assert len(set(names)) == len(names)
    assert {name for name, _ in PLANTS} == set(names)
    assert all(re.fullmatch(r"[1-8] [a-z0-9_]+", name) for name in names)


def test_no_more_than_enough_is_told_of_one_invariant(world: World) -> None:
    for number in range(audit.MOST_PER_INVARIANT + 1):
        foreign = {"token": OTHER_TOKEN, "counts": False, "reason": "asset"}
        store_transfer(world.session, world.over, 7, world.head + 1, name=f"ahead {number}", **foreign)
    assert len(audit.broken(world.session)) == audit.MOST_PER_INVARIANT
