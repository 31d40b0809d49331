"""Before a transfer is final, another endpoint than the one that told of it must bear it out, where the chain has one.

Asked for are the receipt, which says in which block the transaction is, whether it succeeded and what it logged; and
for coin the transaction itself, which says who got how much. A chain with one endpoint alone is asked once more: that
catches a node that changed its mind.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TypeVar

import msgspec

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import Receipt, ReceiptJson, TransactionJson, receipt_of, to_bytes, to_int
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word
from ctrip.blockchain.rpc import Call, Reply
from ctrip.domain.addresses import COIN_LOGGER, NATIVE, hex_text
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Transfer
from ctrip.errors import NodeRefused, NodeUnavailable

T = TypeVar("T")
_RECEIPT = msgspec.json.Decoder(ReceiptJson | None)
_TRANSACTION = msgspec.json.Decoder(TransactionJson | None)
_WORD = 32


class Word(StrEnum):
    """What a witness says of a transfer."""

    BORNE_OUT = "borne_out"
    CONTRADICTED = "contradicted"
    NOT_TOLD = "not_told"


def verify(client: ChainClient, transfers: Sequence[Transfer], *, keep_lease: Callable[[], None]) -> list[str]:
    """Ask other endpoints for transfers that have a receipt. Returns the ids of those that one of them bears out.

    Whoever contradicts what another one bears out is distrusted. Where all that answer contradict it, nobody knows who
    is right: that is said, and it may be asked again, as what nobody told of. `keep_lease` is called between requests.
    """
    told_by: dict[str | None, list[Transfer]] = defaultdict(list)
    for transfer in transfers:
        told_by[transfer.endpoint].append(transfer)
    borne_out: list[str] = []
    for endpoint, told in told_by.items():
        borne_out += _hear(_witnesses(client, endpoint), told, keep_lease=keep_lease)
    return borne_out


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


def _hear(witnesses: Iterator[ChainClient], told: Sequence[Transfer], *, keep_lease: Callable[[], None]) -> list[str]:
    """Ask witnesses one after the other until one bears a transfer out. Returns the ids of those that are."""
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
    return borne_out


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
        return words | _of_missing(witness, [each for each in transfers if words[each.id] is Word.NOT_TOLD])
    except (NodeUnavailable, NodeRefused):
        return dict.fromkeys((transfer.id for transfer in transfers), Word.NOT_TOLD)


def _of_missing(witness: ChainClient, silent: Sequence[Transfer]) -> dict[str, Word]:
    """Tell an endpoint that has a transfer's block without the transaction from one that has not come so far."""
    if not silent:
        return {}
    headers = witness.headers(sorted({transfer.block_number for transfer in silent}))
    return {
        transfer.id: Word.CONTRADICTED
        for transfer in silent
        if transfer.block_number in headers and headers[transfer.block_number].hash == transfer.block_hash
    }


def _word(transfer: Transfer, of_receipt: Reply, of_transaction: Reply | None) -> Word:
    if of_receipt.error is not None or (of_transaction is not None and of_transaction.error is not None):
        raise NodeUnavailable("a receipt or a transaction was refused")
    told = _decoded(_RECEIPT, of_receipt)
    transaction = None if of_transaction is None else _decoded(_TRANSACTION, of_transaction)
    if told is None or (of_transaction is not None and transaction is None):
        return Word.NOT_TOLD
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


def _decoded(decoder: msgspec.json.Decoder[T], reply: Reply) -> T:
    try:
        return decoder.decode(reply.result)
    except ValueError as error:  # msgspec's errors, and undecodable text
        raise NodeUnavailable(f"an answer of the wrong form: {error}") from error
