"""Values and rows with sensible defaults: a test names only what it is about."""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from itertools import count
from typing import Any

import sqlalchemy as sa
from eth_utils.crypto import keccak
from sqlalchemy import Connection

from ctrip.database import coverage, creating, cursors, finality, rates, transfers
from ctrip.database.models import merchants, sweep_attempts, sweep_intents
from ctrip.domain.addresses import NATIVE
from ctrip.domain.chains import Chain, SweepRules, Token
from ctrip.domain.finality import Finality
from ctrip.domain.ids import Prefix, make_id
from ctrip.domain.payments import Payment
from ctrip.domain.prices import Asked, Price, asset_of
from ctrip.domain.rates import Pair, Told
from ctrip.domain.scanning import BlockRange, Header, Move
from ctrip.domain.sweeps import IntentKind, IntentState
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Source, Transfer, TransferStatus

CHAIN_ID = 31337
OTHER_CHAIN_ID = 31338
TOKEN = b"\x70" * 20
OTHER_TOKEN = b"\x71" * 20
ADDRESS = b"\xdd" * 20
PAYER = b"\xaa" * 20
TREASURY = b"\x99" * 20
FINGERPRINT = b"\x0f" * 8
MERCHANT_ID = "mer_01FACTORY00000000000000000"

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
"""When factory payments are made, and the time of block 0; a block is mined each second."""
DEADLINE_BLOCK = 100
"""The block whose time is the deadline of a factory payment: its transfers are on time, those of the next are late."""


def block_time(number: int) -> datetime:
    """The time of a block: a second after the one before."""
    return NOON + timedelta(seconds=number)


def block_hash(number: int, fork: str = "") -> bytes:
    """The hash of a block; another `fork` has other blocks at the same heights."""
    return sha256(f"block {number} {fork}".encode()).digest()


def tx_hash(name: object) -> bytes:
    """The hash of a transaction that the test calls `name`."""
    return sha256(f"transaction {name}".encode()).digest()


def ids() -> Callable[[Prefix], str]:
    """Return what makes ids in order, the same in each run."""
    numbers = count(1)

    def new_id(prefix: Prefix) -> str:
        number = next(numbers)
        return make_id(prefix, now_ms=number, random=number.to_bytes(10))

    return new_id


def make_chain(**changes: Any) -> Chain:
    """A chain with the native coin and two tokens, 3 confirmations and a window of 64 blocks."""
    chain = Chain(
        name="anvil",
        chain_id=CHAIN_ID,
        enabled=True,
        rpc_urls=("http://127.0.0.1:1",),
        ws_urls=(),
        confirmations=3,
        reorg_window=64,
        poll=timedelta(seconds=1),
        treasury=TREASURY,
        sweep=SweepRules(max_fee=200 * 10**9),
        tokens=(
            Token("ETH", NATIVE, 18, rate_names={"static": "ETH"}),
            Token("USDC", TOKEN, 6, rate_names={"static": "USDC"}),
            Token("DAI", OTHER_TOKEN, 18),
        ),
    )
    return replace(chain, **changes)


def make_payment(**changes: Any) -> Payment:
    """A pending payment of 1,000 base units of TOKEN, to be final after 3 confirmations, open until DEADLINE_BLOCK."""
    payment = Payment(
        id="pay_01FACTORY00000000000000000",
        merchant_id=MERCHANT_ID,
        asked=Asked(
            chain_id=CHAIN_ID,
            chain="anvil",
            token=TOKEN,
            symbol="USDC",
            decimals=6,
            amount=1000,
            required=3,
            finality=Finality.CONFIRMATIONS,
        ),
        tolerance_bps=0,
        address=ADDRESS,
        order_id=None,
        customer_email=None,
        metadata={},
        webhook_url=None,
        created_at=NOON,
        expires_at=block_time(DEADLINE_BLOCK),
    )
    return changed(payment, **changes)


def make_price(*chains: Chain, price: str = "49.90") -> Price:
    """A price in EUR that the coin or the first token of any of these chains may pay."""
    assets = [asset_of(chain, each, chain.rule) for chain in chains or (make_chain(),) for each in chain.tokens[:2]]
    return Price(Decimal(price), "EUR", [asset.stored() for asset in assets])


def changed(payment: Payment, **changes: Any) -> Payment:
    """Return a payment with changes of it, or of what it asks for."""
    of_asset = {name: changes.pop(name) for name in set(changes) & {field.name for field in fields(Asked)}}
    return replace(payment, **({"asked": replace(asked_of(payment), **of_asset)} if of_asset else {}) | changes)


def asked_of(payment: Payment) -> Asked:
    """What a payment asks for, of one whose asset is chosen."""
    assert payment.asked is not None
    return payment.asked


def make_transfer(amount: int = 1000, block: int = 10, **changes: Any) -> Transfer:
    """A transfer of TOKEN to a factory payment's address in a canonical block."""
    name = changes.pop("name", f"{amount} in {block}")
    transfer = Transfer(
        id=f"trf_{name}",
        payment_id="pay_01FACTORY00000000000000000",
        chain_id=CHAIN_ID,
        chain="anvil",
        token=TOKEN,
        symbol="USDC",
        decimals=6,
        amount=amount,
        sender=PAYER,
        recipient=ADDRESS,
        tx_hash=tx_hash(name),
        log_index=0,
        block_number=block,
        block_hash=block_hash(block),
        block_time=block_time(block),
        source=Source.ERC20,
        status=TransferStatus.SEEN,
        required=3,
        finality=Finality.CONFIRMATIONS,
        endpoint="node.example",
        is_verified=True,
        is_own=False,
        is_payable=True,
        counts=True,
        reason=None,
        is_announced=False,
    )
    if changes.get("token") == NATIVE:
        changes = {"symbol": "ETH", "decimals": 18, "log_index": NATIVE_LOG_INDEX, "source": Source.NATIVE} | changes
    return replace(transfer, **changes)


def header(number: int, fork: str = "", *, parent_fork: str | None = None) -> Header:
    """The header of a block; its parent is of the same fork unless said otherwise."""
    parent = block_hash(number - 1, fork if parent_fork is None else parent_fork)
    return Header(number, block_hash(number, fork), parent, block_time(number))


# --- rows -----------------------------------------------------------------------------------------------------------


def store_merchant(session: Connection, merchant_id: str = MERCHANT_ID) -> str:
    """Store a merchant; one that is there stays."""
    known = session.scalar(sa.select(merchants.c.id).where(merchants.c.id == merchant_id))
    if known is None:
        session.execute(merchants.insert().values(id=merchant_id, name="A shop", webhook_secret=b"sealed"))
    return merchant_id


def store_payment(session: Connection, *, new_id: Callable[[Prefix], str], **changes: Any) -> Payment:
    """Store a factory payment with its merchant, an address of its own and its first event."""
    index = session.execute(sa.text("SELECT nextval('deposit_index')")).scalar_one()
    payment_id = new_id(Prefix.PAYMENT)
    own = {"id": payment_id, "address": sha256(payment_id.encode()).digest()[:20]}
    payment = make_payment(**own | changes)
    store_merchant(session, payment.merchant_id)
    creating.add(session, payment, wallet_fingerprint=FINGERPRINT, index=index, new_id=new_id)
    return payment


def store_rates(session: Connection, as_of: datetime | None = None, **told: str) -> None:
    """Store what the source `static` tells: `ETH_EUR="3000"`; as of now unless said otherwise."""
    now = session.execute(sa.select(sa.func.now())).scalar_one()
    for name, rate in told.items():
        base, currency = name.split("_")
        word = Told("static", Decimal(rate), as_of or now)
        rates.store(session, {Pair(base, currency): word}, asked_at=now)


def store_transfer(
    session: Connection, payment: Payment, amount: int = 1000, block: int = 10, **changes: Any
) -> Transfer:
    """Store a transfer to a payment's address, in its asset, if it has one, unless said otherwise."""
    asked = payment.asked
    asset = {} if asked is None else {"token": asked.token, "symbol": asked.symbol, "decimals": asked.decimals}
    named = {"name": f"{payment.id} {amount} in {block}", "payment_id": payment.id, "recipient": payment.address}
    transfer = make_transfer(amount, block, **asset | named | changes)
    transfers.store(session, [transfer])
    return transfer


def store_sweep(session: Connection, payment: Payment, *, new_id: Callable[[Prefix], str], **changes: Any) -> str:
    """Store a finished sweep of 1,000 base units of a payment's asset to TREASURY, with its signed transaction."""
    intent_id = new_id(Prefix.SWEEP)
    raw = f"raw {intent_id}".encode()
    values = {
        "id": intent_id,
        "kind": IntentKind.SWEEP,
        "chain_id": payment.chain_id,
        "address": payment.address,
        "token": asked_of(payment).token,
        "payment_id": payment.id,
        "state": IntentState.DONE,
        "sender": payment.address,
        "nonce": 0,
        "recipient": TREASURY,
        "amount": 1000,
        "gas_cost": 0,
        "mined_tx_hash": keccak(raw),
        "mined_block": 1,
        "mined_block_hash": block_hash(1),
    }
    session.execute(sweep_intents.insert().values(**values | changes))
    attempt = {"raw": raw, "tx_hash": keccak(raw), "amount": 1000, "gas_limit": 21_000, "max_fee": 1}
    session.execute(sweep_attempts.insert().values(intent_id=intent_id, number=1, **attempt))
    return intent_id


def read_to(
    session: Connection, number: int, *, chain: Chain | None = None, fork: str = "", after: int = 0
) -> set[str]:
    """Stand the cursor of a chain at block `number`, as the listener does; blocks above `after` are those of `fork`.

    Returns the ids of the payments whose transfers became final by it, or are so no more.
    """
    chain = chain or make_chain()
    cursors.start(session, chain.chain_id, header(0))
    cursors.drop_headers_after(session, chain.chain_id, after)
    above = [header(n, fork, parent_fork="" if n == after + 1 else None) for n in range(after + 1, number + 1)]
    cursors.store_headers(session, chain.chain_id, above)
    tip = above[-1] if above else header(after)
    coverage.cut(session, chain.chain_id, after=header(after))
    if above:
        coverage.extend(
            session,
            chain.chain_id,
            tokens=[token.address for token in chain.tokens],
            read=BlockRange(above[0].number, tip.number),
            parent_hash=above[0].parent_hash,
            last_hash=tip.hash,
            endpoint="factory",
        )
    cursor = cursors.find(session, chain.chain_id)
    assert cursor is not None
    cursors.advance(session, cursor, Move(header(after), tip, tip.number), window=chain.reorg_window)
    return finality.settle_finality(session, chain.chain_id)
