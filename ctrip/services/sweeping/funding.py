"""The fourth step: the gas wallet brings the coin that sweeps of tokens lack."""

from ctrip.database import intents, signers, sweep_queues
from ctrip.database.sweep_queues import Waiting
from ctrip.domain.addresses import NATIVE
from ctrip.domain.gas import gas_limit_for, price_now
from ctrip.domain.sweeps import Hold, Sign, plan_topup
from ctrip.services.sweeping.run import Run
from ctrip.services.sweeping.storing import store_signed

IN_FLIGHT = 16
"""How many unmined transactions of one sender a node keeps without doubt (geth's AccountSlots)."""
LOOK_EVERY = 30
"""Ticks between two looks at the gas wallet where nothing needs one."""


def sign_topups(run: Run) -> None:
    """Sign the top-ups that the gas wallet can pay for, and store what it holds for whoever shows it."""
    wallet, chain_id = run.signer.gas_address, run.chain.chain_id
    with run.ctx.sessions.begin() as session:
        waiting = sweep_queues.signable_topups(session, chain_id, sender=wallet, in_flight=IN_FLIGHT)
    if not waiting and run.loop.claim.fence % LOOK_EVERY != 1:
        return
    balance, used = run.client.balances([(wallet, NATIVE)])[0], run.client.transaction_count(wallet)
    with run.storing() as session:
        signers.store_gas_balance(session, chain_id, wallet, balance=balance, used=used)
        intents.drop_idle_topups(session, chain_id)
        intents.touch(session, [each.intent.id for each in waiting])
    if waiting:
        _sign(run, waiting, balance=balance, used=used)


def _sign(run: Run, waiting: list[Waiting], *, balance: int, used: int) -> None:
    wallet = run.signer.gas_address
    price = price_now(run.client.fees(), ceiling=run.chain.sweep.max_fee)
    gas_limit = gas_limit_for(run.client.estimate_gas(sender=wallet, recipient=waiting[0].intent.recipient))
    for each in waiting:
        run.keep_lease()
        with run.ctx.sessions.begin() as session:
            free_coin = balance - sweep_queues.reserved(session, run.chain.chain_id, wallet)
        decided = plan_topup(amount=each.intent.amount or 0, free_coin=free_coin, gas_limit=gas_limit, price=price)
        match decided:
            case Hold():
                run.hold(each.intent, decided.reason)
            case Sign():
                store_signed(run, each, decided, used=used)
