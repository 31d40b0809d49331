"""The second step: mined sweeps whose block is final are judged by their receipt, and their payments settled."""

from collections.abc import Mapping

from sqlalchemy import Connection

from ctrip.blockchain import erc20
from ctrip.blockchain.decoding import Receipt
from ctrip.database import cursors, intents, sweep_queues, sweeps
from ctrip.domain.addresses import NATIVE, hex_text
from ctrip.domain.sweeps import Attempt, Intent, IntentKind
from ctrip.services.sweeping.run import BATCH, Run, stands


def settle(run: Run) -> None:
    """Close what is final by the listener's rows: done, or failed where the receipt does not say that money moved.

    An intent whose block is not the one that the listener read at its height goes back to sent.
    """
    final_block = run.cursor.final_block(run.chain.rule)
    with run.ctx.sessions.begin() as session:
        deep = sweep_queues.mined_until(session, run.chain.chain_id, block=final_block, limit=BATCH)
    if not deep:
        return
    receipts = run.client.receipts([attempt.tx_hash for _, attempt in deep])
    run.keep_lease()
    told: list[tuple[str, Intent, Attempt, str | None]] = []
    with run.storing() as session:
        canonical = {header.number: header.hash for header in cursors.headers(session, run.chain.chain_id)}
        cursor = cursors.find(session, run.chain.chain_id)  # a reorg may have lowered it since
        final_block = -1 if cursor is None else cursor.final_block(run.chain.rule)
        locked = intents.lock(session, [intent.id for intent, _ in deep])
        intents.touch(session, list(locked))
        for seen, attempt in deep:
            intent, receipt = locked[seen.id], receipts.get(attempt.tx_hash)
            if intent != seen or (intent.mined_block or 0) > final_block:
                continue  # the listener has taken its block, or others, meanwhile
            if not _stands(intent, receipt, canonical):
                intents.unmine(session, intent)
                told.append(("reverted", intent, attempt, None))
            elif receipt is not None:
                failure = _failure(run, intent, attempt=attempt, receipt=receipt)
                _finish(session, intent, attempt=attempt, failure=failure)
                told.append(("done" if failure is None else "failed", intent, attempt, failure))
        run.reassess(session, [intent.payment_id for _, intent, _, _ in told])
    for outcome, intent, attempt, failure in told:
        level = "info" if outcome == "done" else "warning"
        run.tell(outcome, intent, level=level, tx_hash=hex_text(attempt.tx_hash), failure=failure)


def _stands(intent: Intent, receipt: Receipt | None, canonical: Mapping[int, bytes]) -> bool:
    """True where the intent's block is canonical by what was read.

    A receipt that a node does not have, when the block is the right one, is a node that lags: nothing follows from it.
    """
    block, block_hash = intent.mined_block or 0, intent.mined_block_hash or b""
    return stands(canonical, block, block_hash) and (receipt is None or receipt.block_hash == block_hash)


def _failure(run: Run, intent: Intent, *, attempt: Attempt, receipt: Receipt) -> str | None:
    """Say why a final transaction moved nothing; None where it did what it was for."""
    if not receipt.succeeded:
        return "reverted"
    if intent.kind is IntentKind.TOPUP or intent.token == NATIVE:
        return None
    # Success means only that the call did not revert: some tokens answer false instead, and move nothing.
    moved = erc20.moved(receipt.logs, token=intent.token, sender=intent.address, recipient=intent.recipient)
    token = run.chain.token_at(intent.token)
    takes_a_fee = token is not None and token.fee_on_transfer
    if moved == attempt.amount or (takes_a_fee and moved):
        return None
    return "no Transfer of the amount in its logs"


def _finish(session: Connection, intent: Intent, *, attempt: Attempt, failure: str | None) -> None:
    gas_cost = intent.gas_cost or 0
    own_coin = 0
    if intent.kind is IntentKind.SWEEP:
        pot = sweeps.pot(session, intent.chain_id, intent.address)
        if intent.token == NATIVE and failure is None:
            # It took all that top-ups had left there; what it reserved for gas and did not spend is left there anew.
            own_coin = pot - (attempt.gas_reserved - gas_cost)
        else:
            own_coin = min(pot, gas_cost)
    intents.finish(session, intent, failure=failure, own_coin=own_coin)
