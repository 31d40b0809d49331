"""Which of the transfers in a batch of blocks concern us: one question to Postgres for all recipients of the batch.

Until the answer, a recipient is the text that the node wrote. What is not ours is never decoded any further.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ctrip.blockchain.decoding import HASH_BYTES, Block, LogJson, to_bytes, to_int
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, UPGRADED_TOPIC
from ctrip.domain.addresses import ADDRESS_BYTES, COIN_LOGGER, NATIVE, hex_text
from ctrip.domain.scanning import Header
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Sighting
from ctrip.errors import NodeUnavailable

Issued = Callable[[set[bytes]], set[bytes]]
"""Says which of these addresses were issued."""

_TRANSFER = hex_text(TRANSFER_TOPIC)
_UPGRADED = hex_text(UPGRADED_TOPIC)
_TRANSFER_TOPICS = 3
_WORD = 32
_PADDING = "0x" + "00" * (_WORD - ADDRESS_BYTES)
_ADDRESS_TEXT, _WORD_TEXT = 2 + 2 * ADDRESS_BYTES, 2 + 2 * _WORD


@dataclass(frozen=True)
class BlockLogs:
    """A block with the logs of the listed tokens in it; `logs_coin` where coin has logs too (EIP-7708).

    `tellers` are the contracts that the logs are of.
    """

    block: Block
    logs: Sequence[LogJson]
    tellers: frozenset[bytes]
    logs_coin: bool = False


@dataclass(frozen=True)
class Upgrade:
    """A listed token whose proxy got another implementation (ERC-1967): it may behave otherwise from this block on."""

    token: bytes
    block_number: int
    tx_hash: bytes


def checked(block: Block, logs: Sequence[LogJson], *, tokens: Collection[bytes], logs_coin: bool = False) -> BlockLogs:
    """Return a block with its logs of `tokens`, each once.

    Raises NodeUnavailable where one is of another block or of another contract, or was removed.
    """
    hashes = {to_bytes(told) for told in {log.block_hash for log in logs}}
    if not hashes <= {block.header.hash} or True in {log.removed for log in logs}:
        raise NodeUnavailable(f"a log of another block was given for block {block.header.number}")
    tellers = frozenset(to_bytes(address) for address in {log.address for log in logs})
    if not tellers.issubset(tokens):
        raise NodeUnavailable(f"a log of a contract that was not asked for was given for block {block.header.number}")
    by_index = {log.log_index: log for log in logs}
    if len(by_index) < len(logs) and any(by_index[log.log_index] != log for log in logs):
        raise NodeUnavailable(f"two logs of block {block.header.number} have one index")
    return BlockLogs(block, tuple(by_index.values()), tellers, logs_coin)


def sightings(of: Sequence[BlockLogs], *, issued: Issued) -> list[Sighting]:
    """Return every transfer to an issued address: coin by top-level transaction, tokens by log, in the chain's order.

    Whether a transaction succeeded is for its receipt to say.
    """
    recipients = _recipients(of)
    ours = issued(set(recipients.values()))
    if not ours:
        return []
    texts = {text for text, address in recipients.items() if address in ours}
    found: list[Sighting] = []
    for each in of:
        found += () if each.logs_coin else _coin(each.block, texts)
        found += _tokens(each, texts, recipients)
    return found


def is_transfer(log: LogJson) -> bool:
    """True where a log is a Transfer of a token (ERC-20) by which some amount moved."""
    if len(log.topics) != _TRANSFER_TOPICS or log.topics[0] != _TRANSFER:
        return False
    amount = to_bytes(log.payload)
    return len(amount) == _WORD and any(amount) and all(word.startswith(_PADDING) for word in log.topics[1:])


def upgrades(of: Sequence[BlockLogs]) -> list[Upgrade]:
    """Return the upgrades among the logs of listed tokens."""
    return [
        Upgrade(to_bytes(log.address), each.block.header.number, to_bytes(log.transaction_hash))
        for each in of
        for log in each.logs
        if log.topics and log.topics[0] == _UPGRADED
    ]


def _recipients(of: Sequence[BlockLogs]) -> dict[str, bytes]:
    """Return every recipient in a batch, as the node wrote it and as an address.

    An ERC-20 Transfer has three topics (four are ERC-721's), and its addresses are padded with zeros on the left: a
    log with dirty padding comes from no honest token.
    """
    texts: set[str] = set()
    words: set[str] = set()
    for each in of:
        if not each.logs_coin:
            texts.update([tx.to for tx in each.block.transactions if tx.value != "0x0" and tx.to is not None])
        words.update([log.topics[2] for log in each.logs if len(log.topics) == _TRANSFER_TOPICS])
    return _addresses(texts, written=_ADDRESS_TEXT) | _addresses(
        {word for word in words if word.startswith(_PADDING)}, written=_WORD_TEXT
    )


def _addresses(texts: Collection[str], *, written: int) -> dict[str, bytes]:
    """Decode addresses at the end of texts of `written` characters, all at once: a batch of blocks has thousands."""
    if any(length != written for length in set(map(len, texts))):
        raise NodeUnavailable("an address of the wrong length")
    decoded = to_bytes("0x" + "".join([text[-2 * ADDRESS_BYTES :] for text in texts]))
    if len(decoded) != ADDRESS_BYTES * len(texts):
        raise NodeUnavailable("an address that is no hex text")
    places = range(0, len(decoded), ADDRESS_BYTES)
    return {text: decoded[at : at + ADDRESS_BYTES] for text, at in zip(texts, places, strict=True)}


def _coin(block: Block, texts: Collection[str]) -> Iterator[Sighting]:
    for tx in block.transactions:
        if tx.to in texts and to_int(tx.value):
            yield _sighting(
                block.header,
                tx_hash=to_bytes(tx.hash, size=HASH_BYTES),
                log_index=NATIVE_LOG_INDEX,
                token=NATIVE,
                parties=(to_bytes(tx.sender, size=ADDRESS_BYTES), to_bytes(tx.to)),  # type: ignore[arg-type]
                amount=to_int(tx.value),
            )


def _tokens(of: BlockLogs, texts: Collection[str], recipients: Mapping[str, bytes]) -> Iterator[Sighting]:
    for log in of.logs:
        if len(log.topics) != _TRANSFER_TOPICS or log.topics[2] not in texts or not is_transfer(log):
            continue
        yield _sighting(
            of.block.header,
            tx_hash=to_bytes(log.transaction_hash, size=HASH_BYTES),
            log_index=to_int(log.log_index, bits=31),
            token=NATIVE if to_bytes(log.address) == COIN_LOGGER else to_bytes(log.address),
            parties=(to_bytes(log.topics[1])[-ADDRESS_BYTES:], recipients[log.topics[2]]),
            amount=int.from_bytes(to_bytes(log.payload)),
        )


def _sighting(
    header: Header, *, tx_hash: bytes, log_index: int, token: bytes, parties: tuple[bytes, bytes], amount: int
) -> Sighting:
    sender, recipient = parties
    return Sighting(
        block_number=header.number,
        block_hash=header.hash,
        block_time=header.time,
        tx_hash=tx_hash,
        log_index=log_index,
        token=token,
        sender=sender,
        recipient=recipient,
        amount=amount,
    )
