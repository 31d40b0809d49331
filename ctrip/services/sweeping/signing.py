"""The third step: what can go on is looked up on the chain and decided on; signing it is for `storing` to do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ctrip.blockchain import erc20
from ctrip.database import cursors, intents, sweep_queues, sweeps
from ctrip.database.sweep_queues import Waiting
from ctrip.domain.addresses import NATIVE
from ctrip.domain.gas import Fees, exact_price_now, gas_limit_for, price_now, raised
from ctrip.domain.scanning import Cursor
from ctrip.domain.sweeps import (
    MAX_FAILURES,
    HeldReason,
    Hold,
    Plan,
    Sign,
    TopUp,
    plan_coin_sweep,
    plan_token_sweep,
)
from ctrip.errors import NodeRefused
from ctrip.services.sweeping.run import BATCH, Run, stands
from ctrip.services.sweeping.storing import store_signed, store_topup


@dataclass(frozen=True)
class Found:
    """What the chain says of a sweep's address. Coin and tokens are the lesser of the final and the newest balance.

    `final_block` is the block of the final balance, of hash `final_hash`; `used` is the chain's transaction count.
    """

    coin: int
    tokens: int
    final_block: int
    final_hash: bytes
    used: int


def sign_sweeps(run: Run) -> None:
    """Sign the sweeps that can go on, and plan the gas that they lack."""
    with run.ctx.sessions.begin() as session:
        waiting = sweep_queues.signable(session, run.chain.chain_id, limit=BATCH)
        # Read after them: what is final by these rows is in the balance of the final block, never the other way round.
        cursor = cursors.find(session, run.chain.chain_id) or run.cursor
        read = {header.number: header.hash for header in cursors.headers(session, run.chain.chain_id)}
    if not waiting:
        return
    with run.storing() as session:
        intents.touch(session, [each.intent.id for each in waiting])
    ready = [each for each in waiting if each.owed > 0 or each.is_filler]
    if not ready:
        return
    fees = run.client.fees()
    for each, found in _look(run, ready, cursor=cursor, read=read):
        _take_on(run, each, found=found, decided=_decide(run, each, found=found, fees=fees))
        run.keep_lease()


def _look(
    run: Run, waiting: Sequence[Waiting], *, cursor: Cursor, read: Mapping[int, bytes]
) -> Iterator[tuple[Waiting, Found]]:
    """Ask the chain about each sweep's address; those are left out whose final block the node sees differently."""
    by_block: dict[int, list[Waiting]] = {}
    for each in waiting:
        by_block.setdefault(cursor.final_block(each.rule.joined(run.chain.rule)), []).append(each)
    headers = run.client.headers(block for block in by_block if block >= 0)
    for block, header in headers.items():
        if not stands(read, block, header.hash):
            continue  # the node is on another branch than the one that was read: its balances are not what was read
        holders = [(each.intent.address, token) for each in by_block[block] for token in (NATIVE, each.intent.token)]
        final = run.client.balances_told(holders, block=block)
        latest = run.client.balances_told(holders)
        run.keep_lease()
        least = [_least(*pair) for pair in zip(final, latest, strict=True)]
        for coin, tokens, each in zip(least[::2], least[1::2], by_block[block], strict=True):
            if coin is None or tokens is None:
                run.hold(each.intent, HeldReason.REVERTS, detail=f"its balance at block {block} is not told")
                continue
            used = run.client.transaction_count(each.intent.address)
            yield each, Found(coin=coin, tokens=tokens, final_block=block, final_hash=header.hash, used=used)


def _least(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else min(one, other)


def _decide(run: Run, waiting: Waiting, *, found: Found, fees: Fees) -> Plan:
    if waiting.failed_topups >= MAX_FAILURES:
        return Hold(HeldReason.REPEATED_FAILURE)
    try:
        if waiting.intent.token == NATIVE:
            return _decide_on_coin(run, waiting, found=found, fees=fees)
        return _decide_on_tokens(run, waiting, found=found, fees=fees)
    except NodeRefused as error:
        return Hold(HeldReason.REVERTS, detail=error.rpc_message)


def _decide_on_coin(run: Run, waiting: Waiting, *, found: Found, fees: Fees) -> Plan:
    """Decide on a sweep of coin: what the rows say is there, and what top-ups have left."""
    intent, ceiling = waiting.intent, run.chain.sweep.max_fee
    price = exact_price_now(fees, ceiling=ceiling)
    if waiting.last is not None:
        price = raised(waiting.last.price, price, ceiling=ceiling)
    used = run.client.estimate_gas(sender=intent.address, recipient=run.chain.treasury, value=min(1, found.coin))
    with run.ctx.sessions.begin() as session:
        pot = sweeps.pot(session, intent.chain_id, intent.address)
    return plan_coin_sweep(
        owed=waiting.owed + pot,
        balance=found.coin,
        gas_limit=gas_limit_for(used),
        price=price,
        is_filler=waiting.is_filler,
    )


def _decide_on_tokens(run: Run, waiting: Waiting, *, found: Found, fees: Fees) -> Plan:
    """Decide on a sweep of tokens. What is good enough is what a sweep of coin would pay."""
    intent, ceiling = waiting.intent, run.chain.sweep.max_fee
    price, least_price = price_now(fees, ceiling=ceiling), exact_price_now(fees, ceiling=ceiling)
    if waiting.last is not None:
        price = least_price = raised(waiting.last.price, price, ceiling=ceiling)
    amount = min(waiting.owed, found.tokens)
    if amount == 0 and not waiting.is_filler:
        return Hold(HeldReason.UNCOVERED)
    call = erc20.transfer_call(run.chain.treasury, amount)
    used = run.client.estimate_gas(sender=intent.address, recipient=intent.token, call=call)
    return plan_token_sweep(
        amount=amount,
        coin=found.coin,
        gas_limit=gas_limit_for(used),
        price=price,
        least_price=least_price,
        is_filler=waiting.is_filler,
    )


def _take_on(run: Run, waiting: Waiting, *, found: Found, decided: Plan) -> None:
    match decided:
        case Hold():
            run.hold(waiting.intent, decided.reason, detail=decided.detail)
        case TopUp():
            store_topup(run, waiting.intent, amount=decided.amount)
        case Sign():
            store_signed(run, waiting, decided, used=found.used, block=(found.final_block, found.final_hash))
