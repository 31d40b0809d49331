"""What cTrip asks of a chain, in its own words. Addresses and hashes are bytes, amounts base units.

Every method raises NodeUnavailable where no endpoint answered and NodeRefused where the node answered with an error.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from ctrip.blockchain.decoding import (
    Block,
    BlockJson,
    HeaderJson,
    LogJson,
    LogPlaceJson,
    Receipt,
    ReceiptJson,
    header_of,
    receipt_of,
    to_int,
    token_sighting,
)
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word, balance_of_call, decimals_call
from ctrip.blockchain.rpc import Call, RpcPool
from ctrip.domain.addresses import NATIVE, hex_text
from ctrip.domain.chains import Chain
from ctrip.domain.gas import Fees
from ctrip.domain.scanning import BlockRange, Header
from ctrip.domain.transfers import Sighting
from ctrip.errors import BlockVanished, NodeRefused, NodeUnavailable

T = TypeVar("T")

_BLOCK = msgspec.json.Decoder(BlockJson | None)
_HEADER = msgspec.json.Decoder(HeaderJson | None)
_LOGS = msgspec.json.Decoder(list[LogJson])
_PLACES = msgspec.json.Decoder(list[LogPlaceJson])
_RECEIPT = msgspec.json.Decoder(ReceiptJson | None)
_TEXT = msgspec.json.Decoder(str)


class ChainClient:
    """One chain through its pool of endpoints. Threads may share it."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._pool = RpcPool(chain)

    def verify(self) -> None:
        """Raise MisconfiguredError where a reachable endpoint is on another chain than configured."""
        self._pool.verify()

    def head(self) -> Header:
        """Return the header of the newest block."""
        block = _read(_HEADER, self._pool.results([("eth_getBlockByNumber", ["latest", False])])[0])
        if block is None:
            raise NodeUnavailable(f"a node of {self.chain.name} has no head")
        return header_of(block)

    def headers(self, numbers: Iterable[int]) -> dict[int, Header]:
        """Return the canonical headers by number; numbers beyond the node's head are left out."""
        calls: list[Call] = [("eth_getBlockByNumber", [hex(number), False]) for number in numbers]
        blocks = (_read(_HEADER, result) for result in self._pool.results(calls))
        return {header.number: header for header in (header_of(block) for block in blocks if block is not None)}

    def blocks(self, numbers: Iterable[int]) -> list[Block]:
        """Return whole blocks in the order of `numbers`. Raises BlockVanished where the node lacks one of them."""
        calls: list[Call] = [("eth_getBlockByNumber", [hex(number), True]) for number in numbers]
        blocks = []
        for call, result in zip(calls, self._pool.results(calls), strict=True):
            block = _read(_BLOCK, result)
            if block is None:
                raise BlockVanished(f"{self.chain.name} has no block {call[1][0]}")
            blocks.append(Block(header_of(block), tuple(block.transactions)))
        return blocks

    def token_transfers(self, headers: Sequence[Header]) -> list[Sighting]:
        """Return the Transfers of every listed token in the blocks `headers`, in the chain's order.

        Asked for by block hash (EIP-234): a node that lacks the block refuses instead of answering an empty list.
        Raises BlockVanished where one of the blocks is gone.
        """
        tokens = [hex_text(token.address) for token in self.chain.tokens if not token.is_native]
        if not tokens:
            return []
        calls: list[Call] = [
            ("eth_getLogs", [{"blockHash": hex_text(h.hash), "address": tokens, "topics": [hex_text(TRANSFER_TOPIC)]}])
            for h in headers
        ]
        try:
            results = self._pool.results(calls)
        except NodeRefused as error:
            raise BlockVanished(f"{self.chain.name} gave no logs: {error.rpc_message}") from error
        found: list[Sighting] = []
        for header, result in zip(headers, results, strict=True):
            sightings = (token_sighting(log, header) for log in _read(_LOGS, result))
            found += [sighting for sighting in sightings if sighting is not None]
        return found

    def blocks_with_transfers_to(self, address: bytes, among: BlockRange) -> set[int]:
        """Return the blocks that hold Transfers of listed tokens to an address.

        Raises NodeRefused, also where the node does not look through so many blocks at once.
        """
        tokens = [hex_text(token.address) for token in self.chain.tokens if not token.is_native]
        if not tokens:
            return set()
        wanted = {
            "fromBlock": hex(among.first),
            "toBlock": hex(among.last),
            "address": tokens,
            "topics": [hex_text(TRANSFER_TOPIC), None, hex_text(address_word(address))],
        }
        return {to_int(place.block_number) for place in _read(_PLACES, self._one("eth_getLogs", wanted))}

    def receipts(self, tx_hashes: Sequence[bytes]) -> dict[bytes, Receipt]:
        """Return the receipts of mined transactions; hashes that the node does not know are left out."""
        calls: list[Call] = [("eth_getTransactionReceipt", [hex_text(tx_hash)]) for tx_hash in tx_hashes]
        receipts = (_read(_RECEIPT, result) for result in self._pool.results(calls))
        return {receipt.tx_hash: receipt for receipt in (receipt_of(r) for r in receipts if r is not None)}

    def balances(self, holders: Sequence[tuple[bytes, bytes]], *, block: int | None = None) -> list[int]:
        """Return what each (address, token) holds after `block`, or now. Raises NodeRefused where one is not told."""
        told = self.balances_told(holders, block=block)
        for (address, token), balance in zip(holders, told, strict=True):
            if balance is None:
                where = f"{hex_text(address)} of {hex_text(token)}"
                raise NodeRefused(f"no balance of {where}", rpc_code=0, rpc_message="the balance is not told")
        return [balance for balance in told if balance is not None]

    def balances_told(self, holders: Sequence[tuple[bytes, bytes]], *, block: int | None = None) -> list[int | None]:
        """Return what each (address, token) holds; None where token or node refuse to say, which stops no other."""
        tag = _tag(block)
        calls: list[Call] = [
            ("eth_getBalance", [hex_text(address), tag])
            if token == NATIVE
            else ("eth_call", [{"to": hex_text(token), "data": hex_text(balance_of_call(address))}, tag])
            for address, token in holders
        ]
        replies = self._pool.ask(calls) if calls else []
        return [None if reply.error else to_int(_quantity(_read(_TEXT, reply.result))) for reply in replies]

    def transaction_count(self, address: bytes, *, block: int | None = None) -> int:
        """Return the nonce that `address` would use next after `block`, or now by mined blocks alone."""
        return to_int(_read(_TEXT, self._one("eth_getTransactionCount", hex_text(address), _tag(block))))

    def fees(self) -> Fees:
        """Return what a transaction costs now. Where the node suggests no tip, the rest of its gas price is one."""
        calls: list[Call] = [
            ("eth_getBlockByNumber", ["latest", False]),
            ("eth_gasPrice", []),
            ("eth_maxPriorityFeePerGas", []),
        ]
        head, price, tip = self._pool.ask(calls)
        if head.error is not None or price.error is not None:
            raise NodeUnavailable(f"a node of {self.chain.name} does not tell its fees")
        block = _read(_HEADER, head.result)
        base_fee = None if block is None or block.base_fee is None else to_int(block.base_fee)
        gas_price = to_int(_read(_TEXT, price.result))
        left_over = max(0, gas_price - (base_fee or 0))
        return Fees(base_fee, left_over if tip.error else to_int(_read(_TEXT, tip.result)), gas_price)

    def estimate_gas(self, *, sender: bytes, recipient: bytes, value: int = 0, call: bytes = b"") -> int:
        """Return the gas that a transaction would use now. Raises NodeRefused where it would revert."""
        transaction = {
            "from": hex_text(sender),
            "to": hex_text(recipient),
            "value": hex(value),
            "data": hex_text(call),
        }
        return to_int(_read(_TEXT, self._one("eth_estimateGas", transaction)))

    def send_raw(self, raw: bytes) -> None:
        """Broadcast a signed transaction. Raises NodeRefused with the node's words where it does not take it."""
        self._one("eth_sendRawTransaction", hex_text(raw))

    def decimals(self, token: bytes) -> int:
        """Ask a token for its decimals. Raises NodeRefused where there is no such contract."""
        call = {"to": hex_text(token), "data": hex_text(decimals_call())}
        answer = _read(_TEXT, self._one("eth_call", call, "latest"))
        if len(answer) <= 2:
            raise NodeRefused(f"no contract at {hex_text(token)}", rpc_code=0, rpc_message="empty answer")
        return to_int(answer)

    def _one(self, method: str, *params: object) -> msgspec.Raw:
        return self._pool.results([(method, list(params))])[0]


def _read(decoder: msgspec.json.Decoder[T], result: msgspec.Raw) -> T:
    try:
        return decoder.decode(result)
    except ValueError as error:  # msgspec's errors, and undecodable text
        raise NodeUnavailable(f"an answer of the wrong form: {error}") from error


def _tag(block: int | None) -> str:
    return "latest" if block is None else hex(block)


def _quantity(text: str) -> str:
    # A call to an address without code answers "0x", which is no number.
    return text if len(text) > 2 else "0x0"
