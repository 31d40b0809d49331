"""From a node's JSON to headers, sightings and receipts: only the fields that are needed are ever decoded."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import msgspec

from ctrip.blockchain.forms import decoded
from ctrip.blockchain.transport import Form, Reply
from ctrip.domain.gas import Fees
from ctrip.domain.scanning import Header
from ctrip.errors import NodeUnavailable

HASH_BYTES = 32
_WORD_BYTES = 32
_STORED_BITS = 63
_BLOOM_BITS = 2048


# None of these can be part of a cycle, and a batch holds thousands: the garbage collector need not look at them.
class TransactionJson(msgspec.Struct, gc=False):
    """A transaction of a full block."""

    hash: str
    sender: str = msgspec.field(name="from")
    value: str
    to: str | None = None


class HeaderJson(msgspec.Struct):
    """A block without its transactions."""

    number: str
    hash: str
    parent_hash: str = msgspec.field(name="parentHash")
    timestamp: str
    base_fee: str | None = msgspec.field(name="baseFeePerGas", default=None)
    logs_bloom: str | None = msgspec.field(name="logsBloom", default=None)


class BlockJson(HeaderJson, kw_only=True):
    """A block with its transactions, or with their hashes where a header alone was asked for."""

    transactions: list[TransactionJson | str] | None = None


HEADERS = Form(HeaderJson | None)
BLOCKS = Form(BlockJson | None)
"""Blocks that are there or not, in full or not."""
_HEADER = msgspec.json.Decoder(HeaderJson | None)
_TEXT = msgspec.json.Decoder(str)


class LogJson(msgspec.Struct, gc=False):
    """A log of a block or a receipt."""

    address: str
    topics: list[str]
    payload: str = msgspec.field(name="data")
    block_hash: str = msgspec.field(name="blockHash")
    transaction_hash: str = msgspec.field(name="transactionHash")
    log_index: str = msgspec.field(name="logIndex")
    removed: bool = False


class ReceiptJson(msgspec.Struct):
    """A transaction's receipt. `status` is missing before Byzantium (EIP-658)."""

    transaction_hash: str = msgspec.field(name="transactionHash")
    block_number: str = msgspec.field(name="blockNumber")
    block_hash: str = msgspec.field(name="blockHash")
    gas_used: str = msgspec.field(name="gasUsed")
    logs: list[LogJson]
    status: str | None = None
    gas_price: str | None = msgspec.field(name="effectiveGasPrice", default=None)


@dataclass(frozen=True)
class Log:
    """A log of a receipt."""

    address: bytes
    topics: tuple[bytes, ...]
    payload: bytes
    log_index: int


@dataclass(frozen=True)
class Receipt:
    """A receipt. `succeeded` is status 1; `gas_price` is what was paid per gas in wei, None where that is not told."""

    tx_hash: bytes
    block_number: int
    block_hash: bytes
    succeeded: bool
    gas_used: int
    gas_price: int | None
    logs: tuple[Log, ...]

    def gas_cost(self, *, offered: int) -> int:
        """Return the wei spent on gas. A node from before EIP-1559 does not say: there it is the price `offered`."""
        return self.gas_used * (offered if self.gas_price is None else self.gas_price)


@dataclass(frozen=True)
class Block:
    """A block as it was read; its transactions stay undecoded until one of them is known to concern us.

    `bloom` is the header's filter of logs, 0 where the node does not tell it.
    """

    header: Header
    transactions: tuple[TransactionJson, ...]
    bloom: int = 0


def to_int(quantity: str, *, bits: int = 256) -> int:
    """Read a hex quantity of so many bits at the most.

    Raises NodeUnavailable where it is none: a node that writes nonsense is one that fails.
    """
    try:
        number = int(quantity, 16)
    except ValueError as error:
        raise NodeUnavailable(f"{quantity[:40]!r} is no hex quantity") from error
    if number < 0 or number >> bits:
        raise NodeUnavailable(f"{quantity[:40]!r} is no quantity of {bits} bits")
    return number


def to_bytes(text: str, *, size: int | None = None) -> bytes:
    """Read hex bytes, `size` of them where that is given. Raises NodeUnavailable where they are none."""
    try:
        found = bytes.fromhex(text[2:])
    except ValueError as error:
        raise NodeUnavailable(f"{text[:40]!r} is no hex text") from error
    if size is not None and len(found) != size:
        raise NodeUnavailable(f"{text[:40]!r} is not of {size} bytes")
    return found


def to_word(answer: str) -> int | None:
    """Read what a contract answered to a call; None where it is no single word: it may write there what it likes."""
    try:
        word = bytes.fromhex(answer[2:])
    except ValueError:
        return None
    return int.from_bytes(word) if len(word) == _WORD_BYTES else None


def header_of(block: HeaderJson | None) -> Header:
    """Take the header from a block that must be there. Raises NodeUnavailable."""
    if block is None:
        raise NodeUnavailable("a block that there must be is not told")
    try:
        time = datetime.fromtimestamp(to_int(block.timestamp), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise NodeUnavailable(f"block {block.number[:40]} has the time {block.timestamp[:40]}") from error
    return Header(
        number=to_int(block.number, bits=_STORED_BITS),
        hash=to_bytes(block.hash, size=HASH_BYTES),
        parent_hash=to_bytes(block.parent_hash, size=HASH_BYTES),
        time=time,
    )


def numbered(number: int, told: Header) -> Header:
    """Return the header that was told for `number`. Raises NodeUnavailable where it is another block's."""
    if told.number != number:
        raise NodeUnavailable(f"block {told.number} was given for block {number}")
    return told


def headers_of(numbers: Iterable[int], results: Iterable[HeaderJson | None]) -> dict[int, Header]:
    """Read the headers that were told for `numbers`, those that are there. Raises NodeUnavailable."""
    told = zip(numbers, results, strict=True)
    return {number: numbered(number, header_of(block)) for number, block in told if block is not None}


def blocks_of(numbers: Iterable[int], results: Iterable[BlockJson | None]) -> list[Block]:
    """Read the blocks that were told for `numbers`, up to the first that is not there. Raises NodeUnavailable."""
    blocks: list[Block] = []
    for number, told in zip(numbers, results, strict=True):
        if told is None:
            break
        header = numbered(number, header_of(told))
        bloom = to_int(told.logs_bloom or "0x0", bits=_BLOOM_BITS)
        blocks.append(Block(header, _whole(told), bloom))
    return blocks


def _whole(told: BlockJson) -> tuple[TransactionJson, ...]:
    if told.transactions is None or str in map(type, told.transactions):
        raise NodeUnavailable(f"block {told.number[:40]} was given without its transactions")
    return tuple(cast(list[TransactionJson], told.transactions))


def receipt_of(receipt: ReceiptJson) -> Receipt:
    """Read a receipt."""
    return Receipt(
        tx_hash=to_bytes(receipt.transaction_hash),
        block_number=to_int(receipt.block_number),
        block_hash=to_bytes(receipt.block_hash),
        succeeded=receipt.status == "0x1",
        gas_used=to_int(receipt.gas_used),
        gas_price=None if receipt.gas_price is None else to_int(receipt.gas_price),
        logs=tuple(
            Log(
                address=to_bytes(log.address),
                topics=tuple(to_bytes(topic) for topic in log.topics),
                payload=to_bytes(log.payload),
                log_index=to_int(log.log_index),
            )
            for log in receipt.logs
        ),
    )


def fees_of(replies: Iterable[Reply]) -> Fees | None:
    """Read what a transaction costs from the replies, undecoded, for the newest block, the gas price and the tip.

    Where no tip is suggested, the rest of the gas price is one. None where another of them is refused.
    """
    newest, price, tip = replies
    if newest.error is not None or price.error is not None:
        return None
    block = decoded(_HEADER, newest.result)
    base_fee = None if block is None or block.base_fee is None else to_int(block.base_fee)
    gas_price = to_int(decoded(_TEXT, price.result))
    left_over = max(0, gas_price - (base_fee or 0))
    return Fees(base_fee, left_over if tip.error is not None else to_int(decoded(_TEXT, tip.result)), gas_price)
