"""What a token answers may be anything: it is a word or none, and the failure of nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from ctrip.blockchain.arriving import as_arrived
from ctrip.domain.addresses import NATIVE, hex_text
from ctrip.domain.chains import Token
from ctrip.domain.transfers import Sighting
from ctrip.errors import NodeRefused
from tests.blockchain.nodes import Clock, Error, Node, client_of, serving
from tests.factories import ADDRESS, OTHER_TOKEN, PAYER, TOKEN, block_hash, block_time, tx_hash

SEVEN = (7).to_bytes(32)
NO_WORDS = [
    hex_text(SEVEN[:31]),
    hex_text(SEVEN + b"\0"),
    hex_text(SEVEN + SEVEN),
    hex_text(SEVEN * 10_000),
    "0x7",
    "0x07",
    "0x" + "zz" * 32,
    "7",
]


def answering(answer: Any) -> Node:
    """A node whose first token answers every call so, and whose other contracts answer 7."""
    node = Node()

    def call(params: list[Any]) -> str:
        if params[0]["to"] != hex_text(TOKEN):
            return hex_text(SEVEN)
        if answer is None:
            raise Error(3, "execution reverted")
        return str(answer)

    node.methods |= {"eth_call": call, "eth_getBalance": lambda _: "0x7"}
    return node


@pytest.mark.parametrize(
    ("answer", "held"),
    [
        (hex_text(SEVEN), 7),
        (hex_text(b"\xff" * 32), 2**256 - 1),
        ("0x", 0),
        *((none, None) for none in (*NO_WORDS, None)),
    ],
)
def test_a_balance_that_is_no_word_is_not_told_and_those_beside_it_are(answer: Any, held: int | None) -> None:
    with serving(answering(answer)) as chain:
        client = client_of(chain, Clock())
        holders = [(ADDRESS, token) for token in (NATIVE, TOKEN, OTHER_TOKEN)]
        assert client.balances_told(holders) == [7, held, 7]


@pytest.mark.parametrize(
    ("answer", "why"),
    [*((none, "no number") for none in NO_WORDS), ("0x", "no contract"), (None, "reverted")],
)
def test_decimals_that_are_no_word_are_refused_by_the_token(answer: Any, why: str) -> None:
    with serving(answering(answer)) as chain, pytest.raises(NodeRefused) as refused:
        client_of(chain, Clock()).decimals(TOKEN)
    assert why in refused.value.rpc_message


@pytest.mark.parametrize("answer", NO_WORDS)
def test_where_a_token_tells_no_balances_its_log_stands_and_other_tokens_are_read(answer: str) -> None:
    seen = [
        Sighting(90, block_hash(90), block_time(90), tx_hash(90), index, token, PAYER, ADDRESS, 5)
        for index, token in enumerate((TOKEN, OTHER_TOKEN))
    ]
    node = answering(answer)
    odd = node.methods["eth_call"]

    def call(params: list[Any]) -> Any:
        grown = hex_text((9 if params[1] == hex(90) else 6).to_bytes(32))
        return grown if params[0]["to"] == hex_text(OTHER_TOKEN) else odd(params)

    node.methods["eth_call"] = call
    with serving(node) as chain:
        flagged = (Token("A", TOKEN, 6, fee_on_transfer=True), Token("B", OTHER_TOKEN, 6, rebasing=True))
        client = client_of(replace(chain, tokens=(*chain.tokens[:1], *flagged)), Clock())
        assert [each.amount for each in as_arrived(client.pinned(), seen)] == [5, 3]
