"""Before a transfer is final, another endpoint than the one that told of it must bear it out, where the chain has one.

Asked for are the receipt, which says in which block the transaction is, whether it succeeded and what it logged; and
for coin the transaction itself, which says who got how much. A chain with one endpoint alone is asked once more: that
catches a node that changed its mind.

the receipt shows it                                          borne out
the receipt shows something else                              contradicted
no receipt, and the block does not hold the transaction       contradicted
no receipt, and the block holds it, or is another, or unknown not told: many nodes keep no old receipts

What was contradicted is refuted when no endpoint's block holds it, that of the one which told of it included.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import Receipt, ReceiptJson, TransactionJson, decoded, receipt_of, to_bytes, to_int
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word
from ctrip.blockchain.reading import read_blocks
from ctrip.blockchain.transport import Call, Reply
from ctrip.domain.addresses import COIN_LOGGER, NATIVE, hex_text
from ctrip.domain.processing import difference
from ctrip.domain.scanning import Header
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Transfer
from ctrip.errors import BlockVanished, NodeRefused, NodeUnavailable


class _BlockJson(msgspec.Struct):
    """A block with the hashes of its transactions."""

    hash: str
    transactions: list[str]


_BLOCK = msgspec.json.Decoder(_BlockJson | None)
_RECEIPT = msgspec.json.Decoder(ReceiptJson | None)
_TRANSACTION = msgspec.json.Decoder(TransactionJson | None)
_WORD = 32


class Word(StrEnum):
    """What a witness says of a transfer."""

    BORNE_OUT = "borne_out"
    CONTRADICTED = "contradicted"
    NOT_TOLD = "not_told"


@dataclass(frozen=True)
class Heard:
    """The ids of transfers that another endpoint bears out, and of those that all who can tell contradict."""

    borne_out: tuple[str, ...] = ()
    contradicted: tuple[str, ...] = ()


def verify(client: ChainClient, transfers: Sequence[Transfer], *, keep_lease: Callable[[], None]) -> Heard:
    """Ask other endpoints for transfers that have a receipt, until one of them bears a transfer out.

    Whoever contradicts what another one bears out is distrusted. Where all that can tell contradict it, nobody knows
    who is right: that is said, and it may be asked again, as what nobody told of. `keep_lease` is called between
    requests.
    """
    client = client.keeping(keep_lease)
    told_by: dict[str | None, list[Transfer]] = defaultdict(list)
    for transfer in transfers:
        told_by[transfer.endpoint].append(transfer)
    heard = [_hear(_witnesses(client, by), told, keep_lease=keep_lease) for by, told in told_by.items()]
    return Heard(
        borne_out=tuple(each for one in heard for each in one.borne_out),
        contradicted=tuple(each for one in heard for each in one.contradicted),
    )


def refuted(
    client: ChainClient, contested: Sequence[Transfer], *, keep_lease: Callable[[], None]
) -> Sequence[Transfer]:
    """Return the transfers that no endpoint's block holds, that of the one which told of them included.

    An endpoint that has another block there, or none, says nothing. Where only one of several answers, nothing is
    refuted.
    """
    client, recipients, heard = client.keeping(keep_lease), {transfer.recipient for transfer in contested}, 0
    for endpoint in client.endpoints:
        if not contested:
            return []
        numbers = {transfer.block_number for transfer in contested}
        try:
            alone = _alone(client, endpoint)
            told = list(read_blocks(alone, numbers, issued=recipients.intersection, keep_lease=keep_lease))
        except (BlockVanished, NodeRefused, NodeUnavailable):
            contested = [transfer for transfer in contested if transfer.endpoint != endpoint]
            continue
        heard += 1
        hashes = {header.hash for read in told for header in read.headers}
        sightings = [sighting for read in told for sighting in read.sightings]
        strangers = difference(contested, sightings, blocks=numbers).strangers
        contested = [transfer for transfer in strangers if transfer.block_hash in hashes]
    return contested if heard >= min(2, len(client.endpoints)) else []


def agreeing(client: ChainClient, headers: Sequence[Header], *, told_by: str, keep_lease: Callable[[], None]) -> int:
    """Return how many endpoints besides the one that told of some old blocks have the same ones.

    Raises NodeUnavailable where one has another block: nobody knows who is right. One that lacks them says nothing.
    """
    client, found = client.keeping(keep_lease), 0
    for endpoint in client.endpoints:
        if endpoint == told_by:
            continue
        try:
            alone = _alone(client, endpoint)
            there = alone.headers([header.number for header in headers])
        except (NodeRefused, NodeUnavailable):
            continue
        keep_lease()
        for header in headers:
            if header.number in there and there[header.number].hash != header.hash:
                detail = f"another block {header.number} than {told_by} has"
                alone.dispute("fork", detail)
                raise NodeUnavailable(f"{endpoint} told of {detail}")
        found += len(there) == len(headers)
    return found


def _alone(client: ChainClient, endpoint: str) -> ChainClient:
    """Return a client of this endpoint. Raises NodeUnavailable."""
    return client.pinned(avoiding=set(client.endpoints) - {endpoint})


def _witnesses(client: ChainClient, endpoint: str | None) -> Iterator[ChainClient]:
    """Yield a client of each endpoint but the one that told; of that one where there is no other."""
    heard = [endpoint] if endpoint is not None and set(client.endpoints) - {endpoint} else []
    while True:
        try:
            witness = client.pinned(avoiding=heard)
        except NodeUnavailable:
            return
        yield witness
        heard.append(witness.endpoint or "")
        if not set(client.endpoints) - set(heard):
            return


def _hear(witnesses: Iterator[ChainClient], told: Sequence[Transfer], *, keep_lease: Callable[[], None]) -> Heard:
    open_ones, deniers, borne_out = list(told), defaultdict[str, list[ChainClient]](list), list[str]()
    for witness in witnesses:
        words = _ask(witness, open_ones)
        keep_lease()
        for transfer in open_ones:
            if words[transfer.id] is Word.CONTRADICTED:
                deniers[transfer.id].append(witness)
            elif words[transfer.id] is Word.BORNE_OUT:
                borne_out.append(transfer.id)
                for liar in deniers.pop(transfer.id, []):
                    liar.distrust("receipt", _place(transfer))
        open_ones = [transfer for transfer in open_ones if words[transfer.id] is not Word.BORNE_OUT]
        if not open_ones:
            break
    for transfer in open_ones:
        for denier in deniers[transfer.id]:
            denier.dispute("receipt", f"{_place(transfer)}, of which {transfer.endpoint or 'another'} told")
    return Heard(tuple(borne_out), tuple(transfer.id for transfer in open_ones if deniers[transfer.id]))


def _ask(witness: ChainClient, transfers: Sequence[Transfer]) -> dict[str, Word]:
    """Ask one endpoint for all of the transfers in one batch. Returns its word on each by id."""
    calls: list[Call] = []
    for transfer in transfers:
        calls.append(("eth_getTransactionReceipt", [hex_text(transfer.tx_hash or b"")]))
        if _is_coin(transfer):
            calls.append(("eth_getTransactionByHash", [hex_text(transfer.tx_hash or b"")]))
    try:
        replies = iter(witness.ask(calls))
        words = {each.id: _word(each, next(replies), next(replies) if _is_coin(each) else None) for each in transfers}
        unknown = _of_unknown(witness, [each for each in transfers if words[each.id] is None])
    except (NodeUnavailable, NodeRefused):
        return dict.fromkeys((transfer.id for transfer in transfers), Word.NOT_TOLD)
    return {transfer_id: word or unknown[transfer_id] for transfer_id, word in words.items()}


def _of_unknown(witness: ChainClient, unknown: Sequence[Transfer]) -> dict[str, Word]:
    """Tell an endpoint whose block holds no such transaction from one that keeps no receipt, or is behind."""
    numbers = sorted({transfer.block_number for transfer in unknown})
    calls: list[Call] = [("eth_getBlockByNumber", [hex(number), False]) for number in numbers]
    told = [decoded(_BLOCK, reply.result) for reply in (witness.ask(calls) if calls else []) if reply.error is None]
    held = {to_bytes(block.hash): block.transactions for block in told if block is not None}
    return {
        each.id: Word.CONTRADICTED
        if each.block_hash in held and hex_text(each.tx_hash or b"") not in held[each.block_hash]
        else Word.NOT_TOLD
        for each in unknown
    }


def _word(transfer: Transfer, of_receipt: Reply, of_transaction: Reply | None) -> Word | None:
    """Return what replies say of one transfer; None where the endpoint does not know its transaction."""
    if of_receipt.error is not None or (of_transaction is not None and of_transaction.error is not None):
        # What it refuses of one transfer must not keep another from being borne out.
        return Word.NOT_TOLD
    try:
        told = decoded(_RECEIPT, of_receipt.result)
        transaction = None if of_transaction is None else decoded(_TRANSACTION, of_transaction.result)
    except NodeUnavailable:
        return Word.NOT_TOLD
    if told is None or (of_transaction is not None and transaction is None):
        return None
    receipt = receipt_of(told)
    is_there = receipt.succeeded and receipt.block_hash == transfer.block_hash and receipt.tx_hash == transfer.tx_hash
    holds = _has_log(receipt, transfer) if transaction is None else _is_payment(transaction, transfer)
    return Word.BORNE_OUT if is_there and holds else Word.CONTRADICTED


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
