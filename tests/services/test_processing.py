"""A payment read again from its chain: what was missed is stored, what was right stays as it was."""

import json
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.models import payments, transfers
from ctrip.domain.addresses import NATIVE
from ctrip.domain.payments import Payment, Status
from ctrip.domain.transfers import TransferStatus
from ctrip.services import jobs
from ctrip.services.audit import audit
from ctrip.services.rereading import process_payment
from tests.between import Answer, between, forward
from tests.devchain import ETHER, USDC, DevChain
from tests.dying import Killed, dying
from tests.jobs import BY, due_now, see_through
from tests.world import World

pytestmark = pytest.mark.infra


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    anvil.mine(20)  # so that no reorg here reaches what all tests stand on
    return World(ctx, anvil)


def ask(world: World, payment: Payment) -> dict[str, object]:
    return jobs.process_payment(world.ctx, payment_id=payment.id, by=BY)


def process(world: World, payment: Payment) -> dict[str, Any]:
    return see_through(world.ctx, ask(world, payment), process_payment)


def delete_transfers(world: World, payment: Payment) -> None:
    with world.ctx.sessions.begin() as session:
        session.execute(sa.delete(transfers).where(transfers.c.payment_id == payment.id))


@pytest.mark.parametrize("asset", ["coin", "token"])
def test_a_payment_that_is_right_stays_as_it_is_and_its_evidence_is_told(world: World, usdc: bytes, asset: str) -> None:
    payment = world.paid(5 * USDC, token=usdc if asset == "token" else NATIVE)
    before = world.rows()
    for _ in range(2):
        done = process(world, payment)
        assert (done["status"], done["result"]["transfers_stored"], done["result"]["transfers_orphaned"]) == (
            "done",
            0,
            0,
        )
    assert world.rows() == before
    evidence = done["result"]["evidence"]
    assert evidence["payment"]["id"] == payment.id
    assert [transfer["status"] for transfer in evidence["transfers"]] == ["final"]
    assert any("complete on time" in sentence for sentence in done["result"]["in_words"])


@pytest.mark.parametrize("asset", ["coin", "token"])
@pytest.mark.parametrize("age", ["in the reorg window", "older than it"])
def test_a_transfer_that_was_deleted_by_hand_is_back_and_the_payment_stands_as_before(
    world: World, usdc: bytes, asset: str, age: str
) -> None:
    payment = world.paid(5 * USDC, token=usdc if asset == "token" else NATIVE)
    if age == "older than it":
        world.anvil.mine(world.chain.reorg_window + 10)
        world.scan()
    (was,) = world.transfers(payment)
    before = world.payment(payment)
    delete_transfers(world, payment)
    assert audit(world.ctx) != []
    assert process(world, payment)["result"]["transfers_stored"] == 1
    (now,) = world.transfers(payment)
    assert (now.tx_hash, now.amount, now.status) == (was.tx_hash, was.amount, TransferStatus.FINAL)
    assert world.payment(payment) == before
    assert audit(world.ctx) == []


@pytest.mark.parametrize("with_transfers", [True, False])
def test_a_payment_that_lost_its_money_by_hand_is_confirmed_again(
    world: World, usdc: bytes, with_transfers: bool
) -> None:
    payment = world.paid(5 * USDC, token=usdc)
    if with_transfers:
        delete_transfers(world, payment)
    with world.ctx.sessions.begin() as session:
        gone = {"status": "pending", "received": 0, "confirmed": 0, "amount_status": "none", "timing": None}
        session.execute(sa.update(payments).where(payments.c.id == payment.id).values(gone | {"completed_block": None}))
    process(world, payment)
    assert world.payment(payment).standing.status is Status.CONFIRMED


def test_a_transfer_that_no_block_holds_is_taken_back(world: World) -> None:
    payment = world.paid()
    with world.ctx.sessions.begin() as session:
        (row,) = session.execute(sa.select(transfers).where(transfers.c.payment_id == payment.id)).mappings()
        invented = dict(row) | {"id": "trf_invented", "tx_hash": b"\x01" * 32}
        session.execute(sa.insert(transfers).values(invented))
    assert process(world, payment)["result"]["transfers_orphaned"] == 1
    assert [transfer.tx_hash for transfer in world.transfers(payment)] == [row["tx_hash"]]
    assert world.payment(payment).standing.received == ETHER
    assert audit(world.ctx) == []


def test_a_transfer_that_was_orphaned_by_mistake_counts_again(world: World) -> None:
    payment = world.paid()
    with world.ctx.sessions.begin() as session:
        session.execute(sa.update(transfers).values(status="orphaned"))
    process(world, payment)
    assert world.payment(payment).standing.status is Status.CONFIRMED
    assert audit(world.ctx) == []


def test_a_reorg_that_the_listener_has_not_followed_is_left_to_it(world: World) -> None:
    payment = world.paid()
    world.reorg(world.chain.confirmations)
    job_id = str(ask(world, payment)["id"])
    assert process_payment(world.ctx, job_id).again_in is not None
    found = jobs.find(world.ctx, job_id)["progress"]
    assert isinstance(found, dict)
    assert "is not the one that the listener read" in found["waits_for"]
    assert world.payment(payment).standing.status is Status.CONFIRMED, "nobody but the listener follows a reorg"
    world.anvil.mine()
    world.scan()
    due_now(world.ctx)
    done = see_through(world.ctx, {"id": job_id}, process_payment)
    assert (done["status"], world.transfers(payment)) == ("done", [])
    assert audit(world.ctx) == []


def test_the_result_says_which_blocks_were_read(world: World, usdc: bytes) -> None:
    payment = world.paid(5 * USDC, token=usdc)
    world.anvil.mine(100)
    world.scan()
    cursor = world.cursor()
    last = cursor.read_block
    found = process(world, payment)["result"]
    assert (found["first_block"], found["last_block"]) == (cursor.start_block + 1, last)
    assert found["read_for_coin"] == [[last - world.chain.reorg_window + 1, last]]
    assert found["blocks_read"] == world.chain.reorg_window + 1, "and the one with its transfer"


def test_blocks_from_before_the_payment_are_not_read(world: World) -> None:
    world.anvil.mine(50, seconds_apart=3600)
    payment = world.paid()
    first = process(world, payment)["result"]["first_block"]
    (transfer,) = world.transfers(payment)
    assert transfer.block_number - 1 <= first <= transfer.block_number


def test_a_node_that_refuses_wide_spans_is_asked_for_narrower_ones(world: World, usdc: bytes) -> None:
    payment = world.paid(5 * USDC, token=usdc)
    world.anvil.mine(world.chain.reorg_window + 40)
    world.scan()
    delete_transfers(world, payment)
    asked: list[int] = []

    def picky(body: bytes) -> Answer:
        if b'"fromBlock"' in body:
            [wanted] = json.loads(body)["params"]
            asked.append(int(wanted["toBlock"], 16) - int(wanted["fromBlock"], 16) + 1)
            if asked[-1] > 16:
                return 200, json.dumps({"id": 0, "error": {"code": -32005, "message": "block range"}}).encode()
        return 200, forward(world.anvil.url, body)

    job = ask(world, payment)
    with between(world.ctx, picky) as ctx:
        assert see_through(ctx, job, process_payment)["result"]["transfers_stored"] == 1
    assert max(asked) > 16 >= asked[-1]


def test_a_run_that_was_killed_goes_on_with_the_span_at_hand_and_stores_once(world: World, monkeypatch) -> None:
    monkeypatch.setattr("ctrip.domain.processing.WHOLE_SPAN", 10)
    payment = world.paid()
    world.anvil.mine(30)
    world.scan()
    delete_transfers(world, payment)
    job_id = str(ask(world, payment)["id"])

    with pytest.raises(Killed):
        process_payment(dying(world.ctx, when=lambda: world.transfers(payment) != []), job_id)
    assert jobs.find(world.ctx, job_id)["progress"] is None, "it died before it wrote down how far it had come"
    due_now(world.ctx)
    assert see_through(world.ctx, {"id": job_id}, process_payment, between=world._due)["status"] == "done"
    assert len(world.transfers(payment)) == 1
    assert audit(world.ctx) == []


def test_two_at_once_store_once(world: World) -> None:
    payment = world.paid()
    delete_transfers(world, payment)
    first, second = ask(world, payment), ask(world, payment)
    stored: list[int] = []

    def overtaken(body: bytes) -> Answer:
        found = forward(world.anvil.url, body)
        if b"eth_getTransactionReceipt" in body and not stored:
            # The last that the first run asks for, before it stores what it has read.
            stored.append(see_through(world.ctx, second, process_payment)["result"]["transfers_stored"])
        return 200, found

    with between(world.ctx, overtaken) as ctx:
        process_payment(ctx, str(first["id"]))
    assert stored == [1]
    assert see_through(world.ctx, first, process_payment)["result"]["transfers_stored"] == 0
    assert len(world.transfers(payment)) == 1
    assert audit(world.ctx) == []


def test_a_node_that_is_away_is_waited_for(world: World) -> None:
    payment = world.paid()
    job_id = str(ask(world, payment)["id"])
    with between(world.ctx, lambda _: None) as ctx:
        assert process_payment(ctx, job_id).again_in is not None
    due_now(world.ctx)
    assert see_through(world.ctx, {"id": job_id}, process_payment)["status"] == "done"


def test_what_the_merchant_wrote_into_a_payment_is_no_secret_of_ours_in_the_evidence(world: World) -> None:
    phrase = "legal winner thank year wave sausage worth useful legal winner thank yellow"
    payment = world.ask(ETHER, metadata={"note": phrase}, order_id="sk_01ARZ3NDEKTSV4RRFFQ69G5FAV_" + "x" * 43)
    assert process(world, payment)["result"]["evidence"]["payment"]["metadata"] == {"note": phrase}
    assert audit(world.ctx) == []
