"""A synthetic chain: any number of linked blocks from a few bodies, in each of them three payments that are known.

A block's hash and a payment's transaction hash end in the block's number, so nothing has to be remembered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_
from typing import Any

from bench.scan_bodies import TRANSFER, USDC, Body, Log, bloom_of, digest, text_of, word
from ctrip.domain.addresses import NATIVE
from ctrip.domain.transfers import NATIVE_LOG_INDEX

FIRST_BLOCK = 20_000_000
BLOCK_S = 12
COIN_AMOUNT, USDC_AMOUNT = 10**18, 25 * 10**6
"""The least that is paid, in base units."""
PAYER = "0x" + "5a" * 20
_FIRST_TIME = 1_700_000_000
_MOST_KEPT = 4096


@dataclass(frozen=True)
class Planted:
    """A payment of a block. `log_index` is -1 for coin."""

    block_number: int
    transaction: int
    tx_hash: bytes
    log_index: int
    token: bytes
    recipient: bytes
    amount: int


@dataclass(frozen=True)
class Filter:
    """Which logs are asked for: None stands for any address, or any topic at that place."""

    addresses: frozenset[str] | None
    topics: tuple[frozenset[str] | None, ...]

    @classmethod
    def of(cls, wanted: dict[str, Any]) -> "Filter":
        """Read it from the parameter of eth_getLogs."""
        return cls(_choice(wanted.get("address")), tuple(_choice(topic) for topic in wanted.get("topics") or ()))

    def matches(self, log: Log) -> bool:
        """True where `log` is asked for."""
        if self.addresses is not None and log.address not in self.addresses:
            return False
        if len(self.topics) > len(log.topics):
            return False
        return all(wanted is None or topic in wanted for wanted, topic in zip(self.topics, log.topics, strict=False))


def issued_address(number: int) -> bytes:
    """Return the deposit address with this number."""
    return digest("issued", number)[:20]


@dataclass(frozen=True)
class _Own:
    """What a block does not share with others of its body: its payments, their logs, and how it is named."""

    payments: tuple[Planted, Planted, Planted]
    logs: tuple[Log, ...]
    place: bytes
    log_place: bytes


class SyntheticChain:
    """The blocks of one chain. Of `payees` issued addresses one block in `pays_every` pays three: coin, USDC, USDC.

    Those of the other blocks go to strangers. Threads may share it.
    """

    def __init__(self, chain_id: int, bodies: Sequence[Body], *, payees: int, pays_every: int = 1) -> None:
        self.chain_id = chain_id
        self._bodies = bodies
        self._payees = payees
        self._pays_every = pays_every
        self._own = lru_cache(maxsize=_MOST_KEPT)(self._make_own)
        self._selection = lru_cache(maxsize=_MOST_KEPT)(self._select)

    def block_hash(self, number: int) -> bytes:
        """Return the hash of a block."""
        return digest(self.chain_id, "block", number)[:24] + number.to_bytes(8)

    def number_of(self, block_hash: str) -> int | None:
        """Return which block has this hash; None where none has."""
        number = int(block_hash[-16:], 16)
        return number if "0x" + self.block_hash(number).hex() == block_hash else None

    def payments(self, number: int) -> tuple[Planted, Planted, Planted]:
        """Return what block `number` pays, to whomever: coin, then twice USDC."""
        return self._own(number).payments

    def paid(self, number: int) -> Sequence[Planted]:
        """Return what block `number` pays to issued addresses."""
        return self.payments(number) if self._pays_us(number) else ()

    def block(self, number: int, *, is_full: bool) -> bytes:
        """Write a block as eth_getBlockByNumber gives it."""
        body, own = self._body(number), self._own(number)
        transactions = _transactions(body, own) if is_full else _hashes(body, own)
        return b"".join((self._header(number, body, own), b'"transactions":[', transactions, b"]}"))

    def logs(self, numbers: Sequence[int], wanted: Filter) -> bytes:
        """Write the logs of blocks as eth_getLogs gives them."""
        parts = (self._logs(number, wanted) for number in numbers)
        return b"[%b]" % b",".join(part for part in parts if part)

    def transaction(self, tx_hash: str) -> bytes | None:
        """Write a payment's transaction; None for all others, whose hashes are those of several blocks."""
        payment = self._payment(tx_hash)
        return None if payment is None else _transaction(payment) + self._own(payment.block_number).place

    def receipt(self, tx_hash: str) -> bytes | None:
        """Write the receipt of a payment's transaction; None for all others."""
        payment = self._payment(tx_hash)
        if payment is None:
            return None
        own = self._own(payment.block_number)
        logs = [log for log in own.logs if log.transaction == payment.transaction]
        bloom = reduce(or_, (bloom_of(log.address, log.topics) for log in logs), 0)
        return b'%b"logsBloom":"0x%0512x","logs":[%b],%b' % (
            _receipt(payment),
            bloom,
            b",".join(log.text + own.log_place for log in logs),
            own.place,
        )

    def _body(self, number: int) -> Body:
        return self._bodies[number % len(self._bodies)]

    def _make_own(self, number: int) -> _Own:
        body, usdc = self._body(number), bytes.fromhex(USDC[2:])
        coin, first, second = (self._recipient(number, which) for which in range(3))
        hashes = [digest(self.chain_id, "payment", number, which) for which in range(3)]
        names = [name[:23] + bytes([which]) + number.to_bytes(8) for which, name in enumerate(hashes)]
        at, amount = body.tokens_at, USDC_AMOUNT + number % 1000
        payments = (
            Planted(number, body.coin_at, names[0], NATIVE_LOG_INDEX, NATIVE, coin, COIN_AMOUNT + number),
            Planted(number, at[0], names[1], body.log_index(0), usdc, first, amount),
            Planted(number, at[1], names[2], body.log_index(1), usdc, second, amount),
        )
        place = b'"blockHash":"0x%b","blockNumber":"0x%x"}' % (self.block_hash(number).hex().encode(), number)
        return _Own(
            payments=payments,
            logs=tuple(_log(payment) for payment in payments[1:]),
            place=place,
            log_place=b'"blockTimestamp":"0x%x",%b' % (time_of(number), place),
        )

    def _recipient(self, number: int, which: int) -> bytes:
        if not self._pays_us(number):
            return digest("stranger", number, which)[:20]
        return issued_address(number // self._pays_every % (self._payees // 3) * 3 + which)

    def _pays_us(self, number: int) -> bool:
        return self._payees > 0 and number % self._pays_every == 0

    def _payment(self, tx_hash: str) -> Planted | None:
        number = int(tx_hash[-16:], 16)
        return next((paid for paid in self.payments(number) if "0x" + paid.tx_hash.hex() == tx_hash), None)

    def _header(self, number: int, body: Body, own: _Own) -> bytes:
        bloom = reduce(or_, (bloom_of(log.address, log.topics) for log in own.logs), body.bloom)
        return b'%b"number":"0x%x","hash":"0x%b","parentHash":"0x%b","timestamp":"0x%x","logsBloom":"0x%0512x",' % (
            body.header,
            number,
            self.block_hash(number).hex().encode(),
            self.block_hash(number - 1).hex().encode(),
            time_of(number),
            bloom,
        )

    def _logs(self, number: int, wanted: Filter) -> bytes:
        own = self._own(number)
        left = iter(own.logs)
        texts = []
        for text in self._selection(number % len(self._bodies), wanted):
            if text is not None:
                texts.append(text)
            elif wanted.matches(log := next(left)):
                texts.append(log.text)
        return (own.log_place + b",").join(texts) + own.log_place if texts else b""

    def _select(self, which: int, wanted: Filter) -> list[bytes | None]:
        """Return the shared logs of a body that are asked for, and None where each of a block's own stands."""
        logs = self._bodies[which].logs
        return [None if log is None else log.text for log in logs if log is None or wanted.matches(log)]


def time_of(number: int) -> int:
    """Return the time of a block in seconds since 1970."""
    return _FIRST_TIME + BLOCK_S * (number - FIRST_BLOCK)


def _choice(wanted: str | list[str] | None) -> frozenset[str] | None:
    if not wanted:
        return None
    return frozenset([wanted.lower()] if isinstance(wanted, str) else (each.lower() for each in wanted))


def _transactions(body: Body, own: _Own) -> bytes:
    paid = {payment.transaction: payment for payment in own.payments}
    texts = [_transaction(paid[at]) if text is None else text for at, text in enumerate(body.transactions)]
    texts[-1] += own.place
    return (own.place + b",").join(texts)


def _hashes(body: Body, own: _Own) -> bytes:
    paid = {payment.transaction: b"0x" + payment.tx_hash.hex().encode() for payment in own.payments}
    return b",".join(b'"%b"' % (paid[at] if name is None else name) for at, name in enumerate(body.hashes))


def _log(payment: Planted) -> Log:
    topics = (TRANSFER, word(PAYER), word("0x" + payment.recipient.hex()))
    text = _LOG % (
        payment.recipient.hex().encode(),
        payment.amount,
        payment.tx_hash.hex().encode(),
        payment.transaction,
        payment.log_index,
    )
    return Log(transaction=payment.transaction, address=USDC, topics=topics, text=text)


def _transaction(payment: Planted) -> bytes:
    recipient, name = payment.recipient.hex().encode(), payment.tx_hash.hex().encode()
    if payment.log_index == NATIVE_LOG_INDEX:
        to, value, call = recipient, payment.amount, b""
    else:
        to, value, call = USDC[2:].encode(), 0, b"a9059cbb%b%b%064x" % (b"0" * 24, recipient, payment.amount)
    return _TRANSACTION % (to, value, call, name, payment.transaction)


def _receipt(payment: Planted) -> bytes:
    is_coin = payment.log_index == NATIVE_LOG_INDEX
    return text_of(
        {
            "contractAddress": None,
            "cumulativeGasUsed": hex(50_000 * (payment.transaction + 1)),
            "effectiveGasPrice": "0x2540be400",
            "gasUsed": "0x5208" if is_coin else "0xfde8",
            "status": "0x1",
            "type": "0x0",
            "transactionHash": "0x" + payment.tx_hash.hex(),
            "transactionIndex": hex(payment.transaction),
            "from": PAYER,
            "to": "0x" + (payment.recipient if is_coin else payment.token).hex(),
        }
    )


_TRANSACTION = text_of({"type": "0x0", "nonce": "0x0", "gas": "0x186a0", "from": PAYER, "gasPrice": "0x2540be400"}) + (
    b'"r":"0x%(word)b","s":"0x%(word)b","v":"0x1",' % {b"word": b"5a" * 32}
    + b'"to":"0x%b","value":"0x%x","input":"0x%b","hash":"0x%b","transactionIndex":"0x%x",'
)
_LOG = text_of({"address": USDC, "removed": False}) + (
    b'"topics":["%b","%b","0x%b%%b"],"data":"0x%%064x","transactionHash":"0x%%b","transactionIndex":"0x%%x",'
    b'"logIndex":"0x%%x",' % (TRANSFER.encode(), word(PAYER).encode(), b"0" * 24)
)
