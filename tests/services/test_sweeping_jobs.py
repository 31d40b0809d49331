"""Sweeps that an operator asks for: by the same intents as all others, and each money once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import sweeps
from ctrip.database.models import sweep_intents
from ctrip.domain.addresses import checksum_address
from ctrip.domain.payments import Payment, Settlement, Status
from ctrip.domain.sweeps import HeldReason, Intent, IntentKind, IntentState
from ctrip.services import jobs, loops
from ctrip.services.audit import audit
from ctrip.services.sweeping import sweep_address, sweep_now
from tests.devchain import ETHER, USDC, DevChain
from tests.jobs import BY, due_now, job, see_through
from tests.world import World

pytestmark = pytest.mark.infra


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> Iterator[World]:
    """A world where no sweep is worth its gas, unless somebody asks for it."""
    chain = ctx.settings.chains[0]
    tokens = tuple(replace(token, threshold=10 * ETHER) for token in chain.tokens)
    chains = (replace(chain, tokens=tokens),)
    world = World(replace(ctx, settings=replace(ctx.settings, chains=chains)), anvil)
    yield world
    world.scan()
    assert audit(world.ctx) == []


@pytest.fixture
def eager(ctx: Context, anvil: DevChain) -> World:
    """A world where everything is swept by itself."""
    return World(ctx, anvil)


def ask(world: World, payment: Payment, token: str | None = None) -> dict[str, object]:
    address = checksum_address(payment.address)
    return jobs.sweep_address(world.ctx, chain="anvil", address=address, token=token, by=BY)


def sweep(world: World, asked: dict[str, object]) -> dict[str, Any]:
    return see_through(world.ctx, asked, sweep_address, between=lambda: world.live(1))


def intents(world: World, payment: Payment) -> list[Intent]:
    with world.ctx.sessions.begin() as session:
        found = sweeps.of_payment(session, payment.id, limit=100)
    return [intent for intent, _ in found if intent.kind is IntentKind.SWEEP]


def settlement(world: World, payment: Payment) -> Settlement:
    return world.payment(payment).standing.settlement


def test_coin_below_the_threshold_is_swept_because_somebody_asks_and_the_job_ends_when_it_is_final(
    world: World,
) -> None:
    payment, bystander = world.paid(ETHER), world.paid(ETHER)
    world.live(3)
    assert settlement(world, payment) is Settlement.BELOW_THRESHOLD
    before = world.treasury()
    asked = ask(world, payment)
    sweep_address(world.ctx, str(asked["id"]))
    begun = job(world.ctx, str(asked["id"]))
    (intent,) = intents(world, payment)
    assert (begun["status"], begun["progress"]["sweep_id"]) == ("running", intent.id)
    due_now(world.ctx)
    done = sweep(world, asked)
    assert (done["status"], done["result"]["state"]) == ("done", "done")
    (intent,) = intents(world, payment)
    assert intent.mined_tx_hash is not None
    assert done["result"]["tx_hash"] == "0x" + intent.mined_tx_hash.hex()
    assert ETHER - 10**16 < world.treasury() - before < ETHER, "all of it, less the gas"
    assert world.payment(payment).standing.status is Status.SETTLED
    assert (intents(world, bystander), settlement(world, bystander)) == ([], Settlement.BELOW_THRESHOLD)


def test_tokens_get_their_gas_first(world: World, usdc: bytes) -> None:
    payment = world.paid(5 * USDC, token=usdc)
    before = world.treasury(usdc)
    done = sweep(world, ask(world, payment, "USDC"))
    assert (done["status"], done["result"]["amount"], done["result"]["token"]) == ("done", "5", "USDC")
    assert world.treasury(usdc) - before == 5 * USDC


def test_progress_tells_the_state_and_the_transaction(world: World) -> None:
    asked = ask(world, world.paid(ETHER))
    seen: list[dict[str, Any]] = []

    def look() -> None:
        seen.append(job(world.ctx, str(asked["id"]))["progress"])
        world.live(1)

    see_through(world.ctx, asked, sweep_address, between=look)
    states = list(dict.fromkeys(progress["state"] for progress in seen))
    assert states[0] == "planned"
    assert {"sent", "mined"} & set(states)
    assert all(progress["tx_hash"].startswith("0x") for progress in seen if progress["state"] in ("sent", "mined"))


def test_a_sweep_that_ended_before_the_job_began_is_the_one_that_was_asked_for(world: World) -> None:
    payment = world.paid(ETHER)
    first, second = ask(world, payment), ask(world, payment)
    done = [sweep(world, each) for each in (first, second)]
    (intent,) = intents(world, payment)
    assert intent.mined_tx_hash is not None
    assert [(each["status"], each["result"]["tx_hash"]) for each in done] == [
        ("done", "0x" + intent.mined_tx_hash.hex())
    ] * 2
    assert "nothing final" in sweep(world, ask(world, payment))["error"], "that one was over by then"


def test_no_more_than_what_is_final_is_swept(world: World) -> None:
    payment = world.paid(ETHER)
    world.anvil.pay(payment.address, ETHER // 2)
    world.anvil.mine()
    world.scan()  # the second one is in a block, but not final
    before = world.treasury()
    sweep_address(world.ctx, str(ask(world, payment)["id"]))
    world.anvil.mine()
    assert ETHER - 10**16 < world.treasury() - before < ETHER


@pytest.mark.parametrize("token", [None, "USDC"])
def test_where_nothing_is_final_the_job_fails_and_says_so(world: World, token: str | None) -> None:
    payment = world.ask(ETHER)
    world.anvil.pay(payment.address, ETHER)
    world.anvil.mine()
    world.scan()
    failed = sweep(world, ask(world, payment, token))
    assert (failed["status"], intents(world, payment)) == ("failed", [])
    assert "nothing final at this address" in failed["error"]


def test_a_sweep_that_is_under_way_is_waited_for_and_not_doubled(world: World) -> None:
    payment = world.paid(ETHER)
    first, second = ask(world, payment), ask(world, payment)
    for asked in (first, second):
        sweep_address(world.ctx, str(asked["id"]))
    due_now(world.ctx)
    results = [sweep(world, asked)["result"] for asked in (first, second)]
    assert results[0]["sweep_id"] == results[1]["sweep_id"]
    assert len(intents(world, payment)) == 1


@pytest.mark.parametrize("place", ["ctrip.database.jobs.note", "ctrip.services.sweeping.ticking.sign_sweeps"])
def test_a_run_that_was_killed_after_it_planned_goes_on_with_the_same_sweep(
    world: World, monkeypatch, place: str
) -> None:
    payment = world.paid(ETHER)
    asked, before = ask(world, payment), world.treasury()

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(place, kill)
        with pytest.raises(Killed):
            sweep_address(world.ctx, str(asked["id"]))
    due_now(world.ctx)
    world.live(1)
    assert sweep(world, asked)["status"] == "done"
    assert len(intents(world, payment)) == 1
    assert world.treasury() - before < ETHER


def test_a_sweep_that_waits_for_a_human_fails_the_job_with_the_reason(world: World) -> None:
    payment = world.paid(ETHER)
    asked = ask(world, payment)
    sweep_address(world.ctx, str(asked["id"]))
    with world.ctx.sessions.begin() as session:
        held = {"state": IntentState.HELD, "held_reason": HeldReason.SIGNING_REFUSED, "failure": "not ours"}
        session.execute(sa.update(sweep_intents).values(held))
    due_now(world.ctx)
    sweep_address(world.ctx, str(asked["id"]))
    failed = job(world.ctx, str(asked["id"]))
    assert failed["status"] == "failed"
    assert failed["error"].endswith("is held: signing_refused (not ours)")
    with world.ctx.sessions.begin() as session:  # so that the auditor finds what it should
        session.execute(sa.update(sweep_intents).values(state=IntentState.SENT, held_reason=None, failure=None))
    world.live(6)


def test_coin_that_is_worth_less_than_its_gas_fails_the_job_at_once(world: World) -> None:
    failed = sweep(world, ask(world, world.paid(1000)))
    assert "is held: dust" in failed["error"]


def test_a_paused_sweeper_fails_the_job(world: World) -> None:
    asked = ask(world, world.paid(ETHER))
    loops.pause(world.ctx, f"sweeper:{world.chain.chain_id}", by=BY)
    assert "is paused" in sweep(world, asked)["error"]
    loops.resume(world.ctx, f"sweeper:{world.chain.chain_id}", by=BY)


# --- a tick now -------------------------------------------------------------------------------------------------------


def tick_now(world: World) -> dict[str, Any]:
    return see_through(world.ctx, jobs.sweep_now(world.ctx, chain="anvil", by=BY), sweep_now)


def ids(found: dict[str, Any], outcome: str) -> list[str]:
    return [each["payment_id"] for each in found["result"][outcome]]


def test_a_tick_tells_what_it_planned_sent_saw_mined_and_done(eager: World) -> None:
    payment = eager.paid(ETHER)
    first = tick_now(eager)
    assert [ids(first, name) for name in ("planned", "signed", "sent", "mined", "held")] == [[payment.id]] * 3 + [
        [],
        [],
    ]
    assert first["result"]["sent"][0]["tx_hash"].startswith("0x")
    assert first["result"]["under_way"] == {"sent": 1}
    eager.anvil.mine()
    eager.scan()
    assert ids(tick_now(eager), "mined") == [payment.id]
    eager.anvil.mine(eager.chain.confirmations)
    eager.scan()
    assert ids(tick_now(eager), "done") == [payment.id]
    assert eager.payment(payment).standing.status is Status.SETTLED
    assert audit(eager.ctx) == []


def test_a_tick_tells_what_is_held(eager: World) -> None:
    payment = eager.paid(1000)
    found = tick_now(eager)
    assert ids(found, "held") == [payment.id]
    assert found["result"]["held"][0]["reason"] == "dust"
    assert found["result"]["under_way"] == {"held": 1}


@pytest.mark.parametrize("verb", [sweep_now, sweep_address])
def test_on_a_chain_that_is_stopped_nothing_is_swept(eager: World, verb: Callable[..., Any]) -> None:
    payment = eager.paid(ETHER)
    with eager.ctx.sessions.begin() as session:
        session.execute(sa.text("UPDATE chain_cursors SET stopped_reason = 'a deep reorg'"))
    asked = ask(eager, payment) if verb is sweep_address else jobs.sweep_now(eager.ctx, chain="anvil", by=BY)
    assert "a deep reorg" in see_through(eager.ctx, asked, verb)["error"]
    assert intents(eager, payment) == []
