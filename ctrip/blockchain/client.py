"""What cTrip asks of a chain, in its own words. Addresses and hashes are bytes, amounts base units.

Every method raises NodeUnavailable where no endpoint answered and NodeRefused where the node answered with an error.
"""

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Self, TypeVar

from ctrip import metrics
from ctrip.blockchain.decoding import (
    BLOCKS,
    HEADERS,
    Block,
    LogJson,
    Receipt,
    ReceiptJson,
    blocks_of,
    fees_of,
    header_of,
    headers_of,
    receipt_of,
    to_int,
    to_word,
)
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, UPGRADED_TOPIC, balance_of_call, decimals_call
from ctrip.blockchain.fleet import READING
from ctrip.blockchain.learning import Learnt
from ctrip.blockchain.ranges import Piece, Question, logs_in
from ctrip.blockchain.rpc import RpcPool
from ctrip.blockchain.transport import TEXTS, Call, Form, Reply
from ctrip.domain.addresses import NATIVE, hex_text
from ctrip.domain.chains import Chain
from ctrip.domain.finality import Finality
from ctrip.domain.gas import Fees
from ctrip.domain.limits import Limits
from ctrip.domain.scanning import BlockRange, Header
from ctrip.errors import BlockVanished, NodeRefused, NodeUnavailable
from ctrip.log import get_logger

log = get_logger()

V = TypeVar("V")

_LOGS = Form(list[LogJson])
_RECEIPTS = Form(ReceiptJson | None)
_BLOCK_RECEIPTS = Form(list[ReceiptJson])
_WATCHED = [hex_text(TRANSFER_TOPIC), hex_text(UPGRADED_TOPIC)]


class ChainClient:
    """One chain through its pool of endpoints. Threads may share it."""

    def __init__(self, chain: Chain, *, pool: RpcPool | None = None) -> None:
        self.chain = chain
        self._pool = RpcPool(chain) if pool is None else pool
        self.endpoint: str | None = None
        """The label of the one endpoint that a pinned client asks; None for the client of them all."""
        self.keep_lease: Callable[[], None] = lambda: None
        """Called after each request, and by whoever waits for other threads; may raise."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The labels of all endpoints of the chain, in order of preference."""
        return tuple(self._pool.limits())

    @property
    def learnt(self) -> Learnt:
        """What is known of the endpoint of this pinned client."""
        return self._pool.learnt

    def keeping(self, keep_lease: Callable[[], None]) -> Self:
        """Return a client that calls `keep_lease` after each of its requests, and so do those that are pinned of it.

        Whoever holds a lease makes one, and hands it to all that reads: nothing below has to think of the lease.
        """
        one = copy.copy(self)
        one._pool, one.keep_lease = self._pool.keeping(keep_lease), keep_lease
        return one

    def pinned(self, *, avoiding: Collection[str] = (), needs: Collection[str] = READING) -> Self:
        """Return a client that asks one endpoint alone: the best one whose label is not among `avoiding`.

        One that refused one of the methods `needs` of late is taken where there is no other, and one that is distrusted
        is the last choice. Raises NodeUnavailable where all that may be asked fail; where nothing is avoided, one that
        fails is better than none.
        """
        one = copy.copy(self)
        one._pool, endpoint = self._pool.pinned(avoiding=avoiding, needs=needs)
        one.endpoint = endpoint.label
        return one

    def distrust(self, kind: metrics.Disagreement | None, detail: str) -> None:
        """Pass over the endpoint of this pinned client for a while, without an alarm where no `kind` is given."""
        self._pool.distrust()
        if kind is not None:
            self.dispute(kind, detail)

    def pass_over(self, method: str) -> None:
        """Ask others first, for a while, for a method that the endpoint of this pinned client does not serve."""
        self._pool.pass_over(method)

    def dispute(self, kind: metrics.Disagreement, detail: str) -> None:
        """Say that endpoints tell different stories; nobody knows yet which is right. `detail` holds no URL."""
        metrics.CHAIN_DISAGREEMENTS.labels(chain=self.chain.name, kind=kind).inc()
        log.warning("endpoints_disagree", chain=self.chain.name, endpoint=self.endpoint, kind=kind, detail=detail)

    def told_heads(self) -> dict[str, Header]:
        """Return the newest block that each endpoint has told of, by label; a pinned client knows those of all, too."""
        return self._pool.told_heads()

    def told_for(self, number: int) -> timedelta:
        """Return for how long this process knows that the endpoint of this pinned client tells of a head so new."""
        return timedelta(seconds=self._pool.told_for_s(number))

    def verify(self) -> None:
        """Raise MisconfiguredError where a reachable endpoint is on another chain than configured."""
        self._pool.verify()

    def head(self) -> Header:
        """Return the header of the newest block."""
        return self._pool.newest()

    def tagged(self, tags: Sequence[Finality]) -> tuple[Header, dict[Finality, Header]]:
        """Return the newest block and, as told just before it, those that the chain calls so: of the tags it knows."""
        calls: list[Call] = [("eth_getBlockByNumber", [tag, False]) for tag in (*tags, "latest")]

        def read(replies: Sequence[Reply]) -> tuple[Header, dict[Finality, Header]]:
            *blocks, newest = [None if reply.error is not None else reply.result for reply in replies]
            told = zip(tags, blocks, strict=True)
            return header_of(newest), {tag: header_of(block) for tag, block in told if block is not None}

        return self._pool.read_replies(calls, read, form=HEADERS)

    def headers(self, numbers: Iterable[int]) -> dict[int, Header]:
        """Return the canonical headers by number; numbers beyond the node's head are left out."""
        wanted = list(numbers)
        return self._pool.read(_blocks(wanted), partial(headers_of, wanted), form=HEADERS)

    def head_and_headers(self, numbers: Iterable[int]) -> tuple[Header, dict[int, Header]]:
        """Return the newest header and, in the same request, the canonical ones of `numbers`, as `headers` does."""
        wanted = list(numbers)
        return self._pool.read_at_head(_blocks(wanted), partial(headers_of, wanted))

    def blocks(self, numbers: Iterable[int]) -> list[Block]:
        """Return whole blocks in the order of `numbers`. Raises BlockVanished where the node lacks one of them."""
        wanted = list(numbers)
        found = self._pool.read(_blocks(wanted, are_whole=True), partial(blocks_of, wanted), form=BLOCKS)
        if len(found) < len(wanted):
            raise BlockVanished(f"{self.chain.name} has no block {wanted[len(found)]}")
        return found

    def head_and_blocks(self, numbers: Iterable[int]) -> tuple[Header, list[Block]]:
        """Return the newest header and, in the same request, the blocks of `numbers` up to the first that is not there.

        `numbers` follow each other.
        """
        wanted = list(numbers)
        return self._pool.read_at_head(_blocks(wanted, are_whole=True), partial(blocks_of, wanted))

    def logs(self, headers: Sequence[Header], *, tokens: Collection[bytes]) -> list[list[LogJson]]:
        """Return, for each of `headers`, the Transfer and Upgraded logs of `tokens` in its block.

        Asked for by block hash (EIP-234): a node that lacks the block refuses instead of answering an empty list.
        Raises BlockVanished where one of the blocks is gone.
        """
        if not tokens:
            return [[] for _ in headers]
        wanted = {"address": [hex_text(token) for token in tokens], "topics": [_WATCHED]}
        calls: list[Call] = [("eth_getLogs", [{"blockHash": hex_text(header.hash), **wanted}]) for header in headers]
        try:
            return self._pool.read(calls, list, form=_LOGS)
        except NodeRefused as error:
            raise BlockVanished(f"{self.chain.name} gave no logs: {error.rpc_message}") from error

    def logs_in(
        self, span: BlockRange, *, tokens: Sequence[bytes], recipients: Sequence[bytes] | None = None
    ) -> Iterator[Piece]:
        """Yield the Transfer logs of `tokens` in `span`, to `recipients` alone where they are given, piece by piece.

        The pieces are gapless and in order, each as large as the endpoint allows, which is learnt. The logs are asked
        for by number: compare their block hashes before they are stored.
        """
        return logs_in(self._pool, span, Question(tokens, recipients))

    def survey(self) -> None:
        """Compare the heads of all endpoints where that is due: to be called between any two steps; it costs nothing.

        Waits a second at the most, once in 15 seconds or where the head stands still, and raises nothing.
        """
        self._pool.survey()

    def at_once(self, most: int) -> int:
        """Return how many threads may ask at once, `most` at the most: with a limited rate they would only wait."""
        return self._pool.at_once(most)

    def limits(self) -> dict[str, Limits]:
        """Return what each endpoint accepts in a request, as far as that was learnt, by label."""
        return self._pool.limits()

    def adopt(self, limits: Mapping[str, Limits]) -> None:
        """Start from limits that were learnt before; what is not of this chain's endpoints is left out."""
        self._pool.adopt(limits)

    def block_receipts(self, block_hash: bytes) -> list[Receipt]:
        """Return all receipts of a block. Raises NodeRefused, also where the node does not know this question."""
        call: Call = ("eth_getBlockReceipts", [hex_text(block_hash)])
        return self._pool.read([call], lambda told: [receipt_of(each) for each in told[0]], form=_BLOCK_RECEIPTS)

    def receipts(self, tx_hashes: Sequence[bytes]) -> dict[bytes, Receipt]:
        """Return the receipts of mined transactions; hashes that the node does not know are left out."""
        calls: list[Call] = [("eth_getTransactionReceipt", [hex_text(tx_hash)]) for tx_hash in tx_hashes]

        def read(results: Sequence[ReceiptJson | None]) -> dict[bytes, Receipt]:
            return {receipt.tx_hash: receipt for receipt in (receipt_of(r) for r in results if r is not None)}

        return self._pool.read(calls, read, form=_RECEIPTS)

    def balances(self, holders: Sequence[tuple[bytes, bytes]], *, block: int | None = None) -> list[int]:
        """Return what each (address, token) holds after `block`, or now. Raises NodeRefused where one is not told."""
        told = self.balances_told(holders, block=block)
        for (address, token), balance in zip(holders, told, strict=True):
            if balance is None:
                detail = f"no balance of {hex_text(address)} of {hex_text(token)}"
                raise NodeRefused(detail, rpc_code=0, rpc_message="the balance is not told")
        return [balance for balance in told if balance is not None]

    def balances_told(self, holders: Sequence[tuple[bytes, bytes]], *, block: int | None = None) -> list[int | None]:
        """Return what each (address, token) holds; None where token or node do not say, which stops no other."""
        tag = _tag(block)
        calls: list[Call] = [
            ("eth_getBalance", [hex_text(address), tag])
            if token == NATIVE
            else ("eth_call", [{"to": hex_text(token), "data": hex_text(balance_of_call(address))}, tag])
            for address, token in holders
        ]

        def read(replies: Sequence[Reply]) -> list[int | None]:
            told = zip(holders, replies, strict=True)
            return [None if reply.error else _held(token, reply.result) for (_, token), reply in told]

        return self._pool.read_replies(calls, read, form=TEXTS) if calls else []

    def transaction_count(self, address: bytes, *, block: int | None = None) -> int:
        """Return the nonce that `address` would use next after `block`, or now by mined blocks alone."""
        return self._one(("eth_getTransactionCount", [hex_text(address), _tag(block)]), to_int)

    def fees(self) -> Fees:
        """Return what a transaction costs now. Where the node suggests no tip, the rest of its gas price is one."""
        latest: Call = ("eth_getBlockByNumber", ["latest", False])
        fees = self._pool.read_replies([latest, ("eth_gasPrice", []), ("eth_maxPriorityFeePerGas", [])], fees_of)
        if fees is None:
            raise NodeUnavailable(f"a node of {self.chain.name} does not tell its fees")
        return fees

    def estimate_gas(self, *, sender: bytes, recipient: bytes, value: int = 0, call: bytes = b"") -> int:
        """Return the gas that a transaction would use now. Raises NodeRefused where it would revert."""
        asked = {"from": hex_text(sender), "to": hex_text(recipient), "value": hex(value), "data": hex_text(call)}
        return self._one(("eth_estimateGas", [asked]), to_int)

    def send_raw(self, raw: bytes) -> None:
        """Broadcast a signed transaction. Raises NodeRefused with the node's words where it does not take it."""
        self._pool.results([("eth_sendRawTransaction", [hex_text(raw)])])

    def decimals(self, token: bytes) -> int:
        """Ask a token for its decimals. Raises NodeRefused where there is no such contract, or it tells none."""
        call = {"to": hex_text(token), "data": hex_text(decimals_call())}
        answer = self._one(("eth_call", [call, "latest"]), str)
        decimals = to_word(answer)
        if decimals is None:
            told = "empty answer: there is no contract" if answer == "0x" else "its answer is no number"
            raise NodeRefused(f"{hex_text(token)} tells no decimals", rpc_code=0, rpc_message=told)
        return decimals

    def ask(self, calls: Sequence[Call]) -> list[Reply]:
        """Send calls that this class has no words for. An error of a single call is in its reply."""
        return self._pool.ask(calls)

    def read(self, calls: Sequence[Call], reader: Callable[[list[Reply]], V]) -> V:
        """Do as `ask`, and return what `reader` makes of the replies: by NodeUnavailable it says that it cannot."""
        return self._pool.read_replies(calls, reader)

    def _one(self, call: Call, reader: Callable[[str], V]) -> V:
        return self._pool.read([call], lambda told: reader(told[0]), form=TEXTS)


def _blocks(numbers: Iterable[int], *, are_whole: bool = False) -> list[Call]:
    return [("eth_getBlockByNumber", [hex(number), are_whole]) for number in numbers]


def _tag(block: int | None) -> str:
    return "latest" if block is None else hex(block)


def _held(token: bytes, text: str) -> int | None:
    # A call to an address without code answers "0x": nobody holds anything there.
    return to_int(text) if token == NATIVE else 0 if text == "0x" else to_word(text)
