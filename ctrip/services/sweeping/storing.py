"""Where a signature becomes a row: one transaction checks what was decided, takes the nonce, signs and stores."""

from sqlalchemy import Connection

from ctrip.database import cursors, intents, signers, sweep_queues
from ctrip.database.sweep_queues import InFlight, Waiting
from ctrip.domain.addresses import NATIVE, hex_text
from ctrip.domain.ids import Prefix
from ctrip.domain.sweeps import Attempt, HeldReason, Intent, IntentKind, IntentState, Order, Sign
from ctrip.errors import SigningRefused
from ctrip.log import get_logger
from ctrip.services.sweeping.run import Run, stands

log = get_logger()


class Overtaken(Exception):
    """The rows moved while the chain was asked: nothing is stored, and the next tick decides anew."""


class ForeignNonce(Exception):
    """The chain counts more transactions of a sender than were signed here: another has its key."""


def store_signed(
    run: Run, waiting: Waiting, decided: Sign, *, used: int, block: tuple[int, bytes] | None = None
) -> None:
    """Sign what was decided and store it with its nonce, or hold it where that must not be.

    `used` is the chain's transaction count of the sender, `block` number and hash of the block whose balances were
    decided on. A crash before the commit leaves nothing behind; after it, the bytes are there to be broadcast.
    """
    intent = waiting.intent
    number = 1 if waiting.last is None else waiting.last.number + 1
    try:
        with run.storing() as session:
            _check(run, session, waiting, block=block)
            nonce = _nonce(session, intent, used=used)
            attempt = _sign(run, intent, decided, index=waiting.index, nonce=nonce, number=number)
            _store(run, session, intent, attempt=attempt, nonce=nonce)
    except Overtaken:
        log.info("sweep_overtaken", intent_id=intent.id)
    except ForeignNonce:
        run.hold(intent, HeldReason.FOREIGN_NONCE, detail=f"the chain counts {used} transactions of its sender")
    except SigningRefused as error:
        run.hold(intent, HeldReason.SIGNING_REFUSED, detail=error.detail)
    else:
        _tell(run, "signed", intent, attempt=attempt, nonce=nonce)


def store_raised(run: Run, flying: InFlight, decided: Sign) -> None:
    """Store another attempt on the nonce that an intent has. All of them have one effect, and one can land at most."""
    intent = flying.intent
    try:
        with run.storing() as session:
            _lock(session, intent)
            number = flying.last.number + 1
            attempt = _sign(run, intent, decided, index=flying.index, nonce=flying.nonce, number=number)
            _store(run, session, intent, attempt=attempt, nonce=flying.nonce)
    except Overtaken:
        log.info("sweep_overtaken", intent_id=intent.id)
    except SigningRefused as error:
        run.hold(intent, HeldReason.SIGNING_REFUSED, detail=error.detail)
    else:
        _tell(run, "raised", intent, attempt=attempt, nonce=flying.nonce)


def store_topup(run: Run, sweep: Intent, *, amount: int) -> None:
    """Plan the gas that a sweep lacks. The sweep is signed when it is there, and final."""
    with run.storing() as session:
        if intents.lock(session, [sweep.id]).get(sweep.id) != sweep:
            return
        topup_id = run.ctx.new_id(Prefix.SWEEP)
        if not intents.add_topup(session, sweep, new_id=topup_id, sender=run.signer.gas_address, amount=amount):
            return
        if sweep.state is IntentState.HELD and sweep.nonce is None:
            intents.release(session, sweep)
            run.reassess(session, [sweep.payment_id])
    run.tell("topup_planned", sweep, topup_id=topup_id, amount=str(amount))


def _check(run: Run, session: Connection, waiting: Waiting, *, block: tuple[int, bytes] | None) -> None:
    """Raise Overtaken unless everything still is as it was decided on."""
    intent, chain_id = waiting.intent, run.chain.chain_id
    _lock(session, intent)
    if block is None:
        return
    number, block_hash = block
    read = {header.number: header.hash for header in cursors.headers(session, chain_id)}
    again = sweep_queues.signable(session, chain_id, limit=1, intent_id=intent.id)
    if not stands(read, number, block_hash) or again != [waiting]:
        raise Overtaken


def _lock(session: Connection, intent: Intent) -> None:
    if intents.lock(session, [intent.id]).get(intent.id) != intent:
        raise Overtaken


def _nonce(session: Connection, intent: Intent, *, used: int) -> int:
    if intent.nonce is not None:
        if used > intent.nonce:
            raise Overtaken  # one of its attempts has landed
        return intent.nonce
    nonce = signers.next_nonce(session, intent.chain_id, intent.sender, used=used)
    if nonce is None:
        raise ForeignNonce
    signers.take(session, intent.chain_id, intent.sender, nonce)
    return nonce


def _recipient(run: Run, intent: Intent) -> bytes:
    """Return who gets it: the treasury that is configured when it is first signed, and no other afterwards."""
    is_fixed = intent.kind is IntentKind.TOPUP or intent.nonce is not None
    return intent.recipient if is_fixed else run.chain.treasury


def _sign(run: Run, intent: Intent, decided: Sign, *, index: int, nonce: int, number: int) -> Attempt:
    is_topup = intent.kind is IntentKind.TOPUP
    order = Order(
        chain_id=intent.chain_id,
        nonce=nonce,
        token=NATIVE if is_topup else intent.token,
        recipient=_recipient(run, intent),
        amount=decided.amount,
        gas_limit=decided.gas_limit,
        price=decided.price,
    )
    if is_topup:
        signed = run.signer.sign_topup(order, index=index)
    else:
        signed = run.signer.sign_sweep(order, index=index, address=intent.address)
    return Attempt(
        intent_id=intent.id,
        number=number,
        raw=signed.raw,
        tx_hash=signed.tx_hash,
        amount=decided.amount,
        gas_limit=decided.gas_limit,
        price=decided.price,
        created_at=run.ctx.now(),
    )


def _store(run: Run, session: Connection, intent: Intent, *, attempt: Attempt, nonce: int) -> None:
    intents.add_attempt(session, intent, attempt, nonce=nonce, recipient=_recipient(run, intent))
    if intent.state is IntentState.HELD:
        run.reassess(session, [intent.payment_id])


def _tell(run: Run, outcome: str, intent: Intent, *, attempt: Attempt, nonce: int) -> None:
    run.tell(
        outcome,
        intent,
        tx_hash=hex_text(attempt.tx_hash),
        nonce=nonce,
        attempt=attempt.number,
        amount=str(attempt.amount),
        max_fee=attempt.price.max_fee,
    )
