"""Before a transfer is final, another endpoint than the one that told of it must bear it out, where the chain has one.

Asked for are the receipt, which says in which block the transaction is, whether it succeeded and what it logged; for
coin the transaction itself, which says who got how much; and the block, which says when that was. A chain with one
endpoint alone is asked once more: that catches a node that changed its mind.

the receipt shows it, and the block has the time that was told    borne out
the receipt shows something else, or the block another time       contradicted
no receipt, and the block does not hold the transaction           contradicted
no receipt, and the block holds it; another block there, or none  not told: many nodes keep no old receipts

How deep it lies is told by two endpoints as well (`depth`): who is behind bears nothing out as yet.

What becomes of the contradicted, all endpoints together say (`recounting`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import (
    BlockJson,
    HeaderJson,
    Receipt,
    ReceiptJson,
    TransactionJson,
    header_of,
    numbered,
    receipt_of,
    to_bytes,
    to_int,
)
from ctrip.blockchain.depth import Depth
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word
from ctrip.blockchain.forms import decoded
from ctrip.blockchain.others import others
from ctrip.blockchain.transport import Call, Reply
from ctrip.domain.addresses import COIN_LOGGER, NATIVE, hex_text
from ctrip.domain.scanning import Header
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Transfer
from ctrip.errors import NodeRefused, NodeUnavailable

_HEADER = msgspec.json.Decoder(HeaderJson | None)
_BLOCK = msgspec.json.Decoder(BlockJson | None)
_RECEIPT = msgspec.json.Decoder(ReceiptJson | None)
_TRANSACTION = msgspec.json.Decoder(TransactionJson | None)
_WORD = 32
_AT_ONCE = 90
"""Transfers that are asked for together, in one request where a few blocks hold them. For each up to 20 kB are told."""


class Word(StrEnum):
    """What a witness says of a transfer."""

    BORNE_OUT = "borne_out"
    CONTRADICTED = "contradicted"
    NOT_TOLD = "not_told"


@dataclass(frozen=True)
class _Block:
    """What an endpoint has at a number. Its transactions are read where they are looked for: they are hundreds."""

    header: Header
    told: msgspec.Raw

    def lacks(self, tx_hash: bytes | None) -> bool:
        """Return True where it tells its transactions, and this is none of them. Raises NodeUnavailable."""
        block = decoded(_BLOCK, self.told)
        if block is None or block.transactions is None:
            return False
        return tx_hash not in {to_bytes(each if isinstance(each, str) else each.hash) for each in block.transactions}


@dataclass(frozen=True)
class Verification:
    """The ids of transfers that another endpoint bears out, and of those that all who can tell contradict."""

    borne_out: tuple[str, ...] = ()
    contradicted: tuple[str, ...] = ()


def verify(
    client: ChainClient,
    transfers: Sequence[Transfer],
    *,
    ours: Sequence[Header],
    told_by: str | None = None,
) -> Verification:
    """Ask other endpoints for transfers that have a receipt, until one of them bears a transfer out.

    `ours` are the newest blocks that were read, oldest first; `told_by` told of the last of them just now. Transfers
    that are not deep under it are not asked for. Whoever contradicts what another one bears out is distrusted. Where
    all that can tell contradict it, nobody knows who is right: that is said, and it may be asked again, as what nobody
    told of.
    """
    depth = Depth(client, transfers, ours=ours, told_by=told_by)
    groups: dict[str | None, list[Transfer]] = defaultdict(list)
    for transfer in transfers:
        if depth.is_known(transfer):
            groups[transfer.endpoint].append(transfer)
    shown, contradicted = list[Transfer](), list[Transfer]()
    for by, told in groups.items():
        # A chain's only endpoint is asked once more.
        heard, count = [by] if set(client.endpoints) - {by} else [], len(client.endpoints)
        borne_out, denied = _hear(others(client, heard=heard, most=count), told, depth=depth)
        shown += borne_out
        contradicted += denied
    depth.ask_for(client, shown)
    return Verification(
        borne_out=tuple(each.id for each in shown if depth.is_shared(each)),
        contradicted=tuple(each.id for each in contradicted),
    )


def words_of(witness: ChainClient, transfers: Sequence[Transfer]) -> dict[str, Word]:
    """Ask one endpoint for all of the transfers in one batch. Returns its word on each by id."""
    return _ask(witness, transfers)[0]


def _hear(
    witnesses: Iterable[ChainClient], told: Sequence[Transfer], *, depth: Depth
) -> tuple[list[Transfer], list[Transfer]]:
    """Return the transfers that a witness bears out, and those that only contradict it."""
    open_ones, deniers, borne_out = list(told), defaultdict[str, list[ChainClient]](list), list[Transfer]()
    for witness in witnesses:
        wanted = depth.wanted(open_ones)
        words, blocks = _ask(witness, open_ones, also=wanted)
        depth.note(witness.endpoint or "", wanted, blocks)
        for transfer in open_ones:
            if words[transfer.id] is Word.CONTRADICTED:
                deniers[transfer.id].append(witness)
            elif words[transfer.id] is Word.BORNE_OUT:
                borne_out.append(transfer)
                for liar in deniers.pop(transfer.id, []):
                    liar.distrust("receipt", _place(transfer))
        open_ones = [transfer for transfer in open_ones if words[transfer.id] is not Word.BORNE_OUT]
        if not open_ones:
            break
    for transfer in open_ones:
        for denier in deniers[transfer.id]:
            denier.dispute("receipt", f"{_place(transfer)}, of which {transfer.endpoint or 'another'} told")
    return borne_out, [transfer for transfer in open_ones if deniers[transfer.id]]


def _ask(
    witness: ChainClient, transfers: Sequence[Transfer], *, also: Collection[int] = ()
) -> tuple[dict[str, Word], dict[int, Header]]:
    """Ask one endpoint for all of the transfers, and for the blocks of `also`.

    Returns its word on each transfer by id, and the blocks that it has.
    """
    words, headers = _ask_some(witness, transfers[:_AT_ONCE], also=also)
    for first in range(_AT_ONCE, len(transfers), _AT_ONCE):
        more_words, more_headers = _ask_some(witness, transfers[first : first + _AT_ONCE])
        words |= more_words
        headers |= more_headers
    return words, headers


def _ask_some(
    witness: ChainClient, transfers: Sequence[Transfer], *, also: Collection[int] = ()
) -> tuple[dict[str, Word], dict[int, Header]]:
    calls: list[Call] = []
    for transfer in transfers:
        calls.append(("eth_getTransactionReceipt", [hex_text(transfer.tx_hash or b"")]))
        if _is_coin(transfer):
            calls.append(("eth_getTransactionByHash", [hex_text(transfer.tx_hash or b"")]))
    numbers = sorted({*also, *(transfer.block_number for transfer in transfers)})
    calls += [("eth_getBlockByNumber", [hex(number), False]) for number in numbers]
    try:
        replies = witness.ask(calls)
    except (NodeUnavailable, NodeRefused):
        return dict.fromkeys((transfer.id for transfer in transfers), Word.NOT_TOLD), {}
    of_blocks = zip(numbers, replies[len(calls) - len(numbers) :], strict=True)
    blocks = {number: block for number, reply in of_blocks if (block := _block(number, reply)) is not None}
    rest = iter(replies)
    words = {
        each.id: _word(each, next(rest), next(rest) if _is_coin(each) else None, blocks.get(each.block_number))
        for each in transfers
    }
    return words, {number: block.header for number, block in blocks.items()}


def _block(number: int, reply: Reply) -> _Block | None:
    if reply.error is not None:
        return None
    try:
        told = decoded(_HEADER, reply.result)
        return None if told is None else _Block(numbered(number, header_of(told)), reply.result)
    except NodeUnavailable:
        return None


def _word(transfer: Transfer, of_receipt: Reply, of_transaction: Reply | None, block: _Block | None) -> Word:
    """Return what replies say of one transfer."""
    if of_receipt.error is not None or (of_transaction is not None and of_transaction.error is not None):
        # What it refuses of one transfer must not keep another from being borne out.
        return Word.NOT_TOLD
    try:
        told = decoded(_RECEIPT, of_receipt.result)
        transaction = None if of_transaction is None else decoded(_TRANSACTION, of_transaction.result)
        if told is None or (of_transaction is not None and transaction is None):
            return _word_of_unknown(transfer, block)
        is_shown = _is_shown(transfer, receipt_of(told), transaction)
    except NodeUnavailable:
        return Word.NOT_TOLD
    if not is_shown:
        return Word.CONTRADICTED
    if block is None or block.header.hash != transfer.block_hash:
        # Its receipt says otherwise: behind one address there may be several nodes, or a reorg goes on.
        return Word.NOT_TOLD
    return Word.BORNE_OUT if block.header.time == transfer.block_time else Word.CONTRADICTED


def _word_of_unknown(transfer: Transfer, block: _Block | None) -> Word:
    """Tell an endpoint whose block holds no such transaction from one that keeps no receipt, or is behind."""
    is_lacking = block is not None and block.header.hash == transfer.block_hash and block.lacks(transfer.tx_hash)
    return Word.CONTRADICTED if is_lacking else Word.NOT_TOLD


def _is_shown(transfer: Transfer, receipt: Receipt, transaction: TransactionJson | None) -> bool:
    is_there = receipt.succeeded and receipt.block_hash == transfer.block_hash and receipt.tx_hash == transfer.tx_hash
    return is_there and (_has_log(receipt, transfer) if transaction is None else _is_payment(transaction, transfer))


def _has_log(receipt: Receipt, transfer: Transfer) -> bool:
    address = COIN_LOGGER if transfer.token == NATIVE else transfer.token
    topics = (TRANSFER_TOPIC, address_word(transfer.sender or b""), address_word(transfer.recipient))
    payload = transfer.amount.to_bytes(_WORD)
    return any(
        (log.log_index, log.address, log.topics) == (transfer.log_index, address, topics)
        # What a token that takes a fee or rebases brought is the difference of a balance, whatever its log says.
        and (log.payload == payload or not transfer.is_payable)
        for log in receipt.logs
    )


def _is_payment(transaction: TransactionJson, transfer: Transfer) -> bool:
    return (
        to_bytes(transaction.to or "0x") == transfer.recipient
        and to_bytes(transaction.sender) == transfer.sender
        and to_int(transaction.value) == transfer.amount
    )


def _is_coin(transfer: Transfer) -> bool:
    return transfer.token == NATIVE and transfer.log_index == NATIVE_LOG_INDEX


def _place(transfer: Transfer) -> str:
    return f"log {transfer.log_index} of {hex_text(transfer.tx_hash or b'')} in block {transfer.block_number}"
