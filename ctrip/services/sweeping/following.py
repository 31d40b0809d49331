"""The last step: what was signed is broadcast, looked for in blocks, and priced higher where it waits for too long."""

from collections.abc import Sequence
from dataclasses import dataclass

from ctrip.blockchain.decoding import Receipt
from ctrip.database import intents, sweep_queues
from ctrip.database.sweep_queues import InFlight
from ctrip.domain.addresses import NATIVE, hex_text
from ctrip.domain.gas import Fees, Price, exact_price_now, is_taken, price_now, raised
from ctrip.domain.sweeps import (
    Answer,
    Attempt,
    HeldReason,
    IntentKind,
    IntentState,
    Move,
    Sight,
    Sign,
    classify,
    next_move,
)
from ctrip.errors import NodeRefused
from ctrip.services.sweeping.run import BATCH, Run
from ctrip.services.sweeping.storing import store_raised, store_topup


@dataclass(frozen=True)
class _Pocket:
    """What the sender holds now: coin, and the tokens that a sweep moves."""

    coin: int
    tokens: int


def follow(run: Run) -> None:
    """Take every signed intent that is not mined on by one step."""
    with run.ctx.sessions.begin() as session:
        flying = sweep_queues.in_flight(session, run.chain.chain_id, bump_after=run.chain.sweep.bump_after, limit=BATCH)
    if not flying:
        return
    with run.storing() as session:
        intents.touch(session, [each.intent.id for each in flying])
    fees = run.client.fees()
    # The balances before the receipts: coin that is missing because the transaction was mined has a receipt by then.
    pockets = _pockets(run, flying)
    receipts = run.client.receipts([attempt.tx_hash for each in flying for attempt in each.attempts])
    run.keep_lease()
    _store_mined(run, flying, receipts)
    rest = [each for each in flying if not _landed(each, receipts)]
    for each in sorted(rest, key=lambda one: (one.intent.sender, one.nonce)):
        pocket = pockets.get(each.intent.id)
        if pocket is not None and each.intent.held_reason is not HeldReason.FOREIGN_NONCE:
            _move(run, each, pocket=pocket, fees=fees)
            run.keep_lease()


def _pockets(run: Run, flying: Sequence[InFlight]) -> dict[str, _Pocket]:
    """Return what the senders hold, by intent; those are left out whose token does not tell."""
    holders = [(each.intent.sender, token) for each in flying for token in (NATIVE, _moved_token(each))]
    told = run.client.balances_told(holders)
    return {
        each.intent.id: _Pocket(coin, tokens)
        for each, coin, tokens in zip(flying, told[::2], told[1::2], strict=True)
        if coin is not None and tokens is not None
    }


def _moved_token(flying: InFlight) -> bytes:
    return NATIVE if flying.intent.kind is IntentKind.TOPUP else flying.intent.token


def _landed(flying: InFlight, receipts: dict[bytes, Receipt]) -> tuple[Attempt, Receipt] | None:
    found = (attempt for attempt in flying.attempts if attempt.tx_hash in receipts)
    return next(((attempt, receipts[attempt.tx_hash]) for attempt in found), None)


def _store_mined(run: Run, flying: Sequence[InFlight], receipts: dict[bytes, Receipt]) -> None:
    landed = [(each, found) for each in flying if (found := _landed(each, receipts)) is not None]
    if not landed:
        return
    with run.storing() as session:
        for each, (attempt, receipt) in landed:
            intents.mark_mined(
                session,
                each.intent,
                attempt=attempt,
                block=receipt.block_number,
                block_hash=receipt.block_hash,
                gas_cost=receipt.gas_cost(offered=attempt.price.max_fee),
            )
        run.reassess(session, [each.intent.payment_id for each, _ in landed if each.intent.state is IntentState.HELD])
    for each, (attempt, receipt) in landed:
        run.tell("mined", each.intent, tx_hash=hex_text(attempt.tx_hash), block=receipt.block_number)


def _move(run: Run, flying: InFlight, *, pocket: _Pocket, fees: Fees) -> None:
    intent, price = flying.intent, _raised_price(run, flying, fees)
    decided = None if price is None else _raised(flying, pocket, price)
    shortage = 0 if price is None else flying.last.gas_limit * price.max_fee - pocket.coin
    is_token_sweep = _moved_token(flying) != NATIVE
    sight = Sight(
        is_covered=_is_covered(flying, pocket),
        is_waiting=intent.state is IntentState.SENT and intent.sent_at is not None,
        is_stale=run.cursor.read_block >= (intent.broadcast_block or 0) + run.chain.confirmations,
        is_overdue=flying.is_overdue,
        can_raise=decided is not None,
        lacks_gas=is_token_sweep and shortage > 0,
        is_taken=is_taken(flying.last.price, fees),
    )
    move = next_move(sight)
    if move is Move.BROADCAST:
        _broadcast(run, flying, decided=decided)
    elif move is Move.RAISE and decided is not None:
        store_raised(run, flying, decided)
    elif move is Move.TOP_UP and not flying.has_topup:
        store_topup(run, intent, amount=shortage)
    elif move is Move.HOLD_UNCOVERED:
        run.hold(intent, _unfunded(flying))
    elif move is Move.HOLD_FEE_CEILING:
        run.hold(intent, HeldReason.FEE_CEILING if price is None else _too_dear(flying))


def _is_covered(flying: InFlight, pocket: _Pocket) -> bool:
    last = flying.last
    if _moved_token(flying) == NATIVE:
        return pocket.coin >= last.amount + last.gas_reserved
    return pocket.coin >= last.gas_reserved and pocket.tokens >= last.amount


def _unfunded(flying: InFlight) -> HeldReason:
    is_topup = flying.intent.kind is IntentKind.TOPUP
    return HeldReason.GAS_WALLET_EMPTY if is_topup else HeldReason.UNCOVERED


def _too_dear(flying: InFlight) -> HeldReason:
    """Name what lacks where a price below the ceiling cannot be paid."""
    return HeldReason.DUST if flying.intent.kind is IntentKind.SWEEP else HeldReason.GAS_WALLET_EMPTY


def _raised_price(run: Run, flying: InFlight, fees: Fees) -> Price | None:
    ceiling = run.chain.sweep.max_fee
    is_coin_sweep = flying.intent.kind is IntentKind.SWEEP and flying.intent.token == NATIVE
    now = exact_price_now(fees, ceiling=ceiling) if is_coin_sweep else price_now(fees, ceiling=ceiling)
    return raised(flying.last.price, now, ceiling=ceiling)


def _raised(flying: InFlight, pocket: _Pocket, price: Price) -> Sign | None:
    """Return the next attempt at a higher price; None where its sender cannot pay for it.

    A sweep of coin pays out of what it moves: the treasury gets as much less.
    """
    last = flying.last
    gas = last.gas_limit * price.max_fee
    if _moved_token(flying) != NATIVE:
        return Sign(last.amount, last.gas_limit, price) if pocket.coin >= gas else None
    if flying.intent.kind is IntentKind.TOPUP:
        return Sign(last.amount, last.gas_limit, price) if pocket.coin >= last.amount + gas else None
    amount = last.amount + last.gas_reserved - gas
    return Sign(amount, last.gas_limit, price) if amount > 0 else None


def _broadcast(run: Run, flying: InFlight, *, decided: Sign | None) -> None:
    """Send the stored bytes of the newest attempt, and store what the node says to them."""
    intent, said = flying.intent, None
    try:
        run.client.send_raw(flying.last.raw)
        answer = Answer.ACCEPTED
    except NodeRefused as error:
        said, answer = error.rpc_message, classify(error.rpc_message)
    if answer in (Answer.ACCEPTED, Answer.KNOWN):
        _mark_sent(run, flying)
    elif answer is Answer.NONCE_USED:
        _look_for_another(run, flying)
    elif answer is Answer.UNDERPRICED and decided is not None:
        store_raised(run, flying, decided)
    elif answer is Answer.UNDERPRICED:
        run.hold(intent, HeldReason.FEE_CEILING, detail=said)
    elif answer is Answer.UNFUNDED:
        run.hold(intent, _unfunded(flying), detail=said)
    elif answer is Answer.REFUSED:
        run.hold(intent, HeldReason.NODE_REFUSES, detail=said)


def _mark_sent(run: Run, flying: InFlight) -> None:
    intent = flying.intent
    is_news = intent.state is not IntentState.SENT or intent.sent_at is None
    with run.storing() as session:
        if not intents.mark_sent(session, intent, read_block=run.cursor.read_block):
            return
        if intent.state is IntentState.HELD:
            run.reassess(session, [intent.payment_id])
    if is_news:
        run.tell("sent", intent, tx_hash=hex_text(flying.last.tx_hash), nonce=intent.nonce)


def _look_for_another(run: Run, flying: InFlight) -> None:
    """The nonce is spent: by one of our attempts, and its receipt comes, or finally by another, and it never does."""
    intent = flying.intent
    final_block = run.cursor.final_block(run.chain.rule)
    if final_block < 0:
        return
    try:
        used = run.client.transaction_count(intent.sender, block=final_block)
    except NodeRefused as error:
        # A node that keeps no state of so old a block cannot say whose transaction it was.
        run.hold(intent, HeldReason.NODE_REFUSES, detail=error.rpc_message)
        return
    if used > flying.nonce:
        receipts = run.client.receipts([attempt.tx_hash for attempt in flying.attempts])
        if not receipts:
            run.hold(intent, HeldReason.FOREIGN_NONCE, detail=f"nonce {flying.nonce} was spent by another")
