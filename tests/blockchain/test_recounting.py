"""Each endpoint is heard on a contested transfer, by its blocks and its receipts, over real HTTP."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word
from ctrip.blockchain.recounting import recounted
from ctrip.domain.addresses import hex_text
from ctrip.domain.rereading import Recount, facts_of
from ctrip.domain.transfers import Transfer
from tests.blockchain.nodes import Clock, Http, Node, Request, client_of, serving
from tests.factories import PAYER, make_transfer

TRUE = make_transfer(1000, 90, log_index=7)
FALSE = replace(TRUE, amount=2000)


class Holder(Node):
    """A node whose block holds what `logs` and `receipts` say, each of them a transfer or none."""

    def __init__(self, logs: Transfer | None, receipts: Transfer | None) -> None:
        super().__init__()
        self.methods |= {
            "eth_getBlockByNumber": self._block,
            "eth_getLogs": lambda params: _logs(logs) if params[0]["blockHash"] == hex_text(TRUE.block_hash) else [],
            "eth_getTransactionReceipt": lambda _: _receipt(receipts),
        }

    def _block(self, params: list[Any]) -> dict[str, Any] | None:
        block, is_whole = self.block(params[0]), params[1]
        if block is None or is_whole or params[0] != hex(TRUE.block_number):
            return block
        return block | {"transactions": [hex_text(TRUE.tx_hash or b"")]}


def _logs(of: Transfer | None) -> list[dict[str, Any]]:
    if of is None:
        return []
    log = {
        "address": hex_text(of.token),
        "topics": [hex_text(each) for each in (TRANSFER_TOPIC, address_word(PAYER), address_word(of.recipient))],
        "data": hex_text(of.amount.to_bytes(32)),
        "blockHash": hex_text(of.block_hash),
        "transactionHash": hex_text(of.tx_hash or b""),
        "logIndex": hex(of.log_index),
    }
    return [log]


def _receipt(of: Transfer | None) -> dict[str, Any] | None:
    if of is None:
        return None
    return {
        "transactionHash": hex_text(of.tx_hash or b""),
        "blockNumber": hex(of.block_number),
        "blockHash": hex_text(of.block_hash),
        "gasUsed": "0x5208",
        "status": "0x1",
        "logs": _logs(of),
    }


def _away() -> Node:
    def hang_up(_: Request) -> None:
        raise Http(0, None)

    node = Node()
    node.before = hang_up
    return node


def _recounted(*nodes: Node) -> Recount:
    """What is said of FALSE, of which the first node told."""
    with serving(*nodes) as chain:
        contested = [replace(FALSE, endpoint=nodes[0].label)]
        client = client_of(chain, Clock())
        return recounted(client, contested, issued=lambda addresses: addresses)


CASES: dict[str, tuple[tuple[Callable[[], Node], ...], bool]] = {
    "both have another one in its place": ((lambda: Holder(TRUE, TRUE), lambda: Holder(TRUE, TRUE)), True),
    "who told of it upholds it": ((lambda: Holder(FALSE, FALSE), lambda: Holder(TRUE, TRUE)), False),
    "two deny it": ((_away, lambda: Holder(TRUE, TRUE), lambda: Holder(TRUE, TRUE)), True),
    "one denies it": ((_away, lambda: Holder(TRUE, TRUE)), False),
    "they leave logs out that their receipts show": ((lambda: Holder(None, FALSE), lambda: Holder(None, FALSE)), False),
    "they have neither logs nor receipts so old": ((lambda: Holder(None, None), lambda: Holder(None, None)), False),
    "their receipts deny it as well": ((lambda: Holder(None, TRUE), lambda: Holder(None, TRUE)), True),
}


@pytest.mark.parametrize("name", CASES)
def test_a_transfer_is_false_where_blocks_and_receipts_of_most_endpoints_say_so(name: str) -> None:
    make, is_false = CASES[name]
    assert bool(_recounted(*(each() for each in make)).false) is is_false


def test_what_is_there_instead_is_told_by_the_first_endpoint_that_shows_it() -> None:
    nodes = Holder(FALSE, FALSE), Holder(TRUE, TRUE), Holder(TRUE, TRUE)
    ((endpoint, (found,)),) = _recounted(*nodes).there.items()
    assert (endpoint, facts_of(found)) == (nodes[1].label, facts_of(TRUE))


def test_who_goes_on_telling_of_what_most_deny_is_passed_over() -> None:
    nodes = Holder(FALSE, FALSE), Holder(TRUE, TRUE), Holder(TRUE, TRUE)
    with serving(*nodes) as chain:
        client = client_of(chain, Clock())
        assert client.pinned().endpoint == nodes[0].label
        recounted(client, [FALSE], issued=lambda addresses: addresses)
        assert client.pinned().endpoint == nodes[1].label


def test_nothing_is_asked_where_nothing_is_contested() -> None:
    node = Node()
    with serving(node) as chain:
        client = client_of(chain, Clock())
        assert recounted(client, [], issued=lambda addresses: addresses) == Recount()
    assert node.asked == []
