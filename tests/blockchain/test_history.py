"""Old blocks: which of them a moment falls into, and which may hold what is looked for."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from ctrip.blockchain.history import Hits, first_block_since, hits_in, old_headers
from ctrip.domain.scanning import BlockRange
from ctrip.errors import BlockVanished
from tests.blockchain.nodes import Clock, Error, Http, LogNode, Node, Request, client_of, serving
from tests.factories import ADDRESS, PAYER, TOKEN, block_time

SPAN = BlockRange(1, 10)


@pytest.mark.parametrize(
    ("seconds", "found"), [(50, 50), (49.5, 50), (50.5, 51), (10, 10), (3, 10), (80, 80), (80.5, 81), (999, 81)]
)
def test_the_first_block_of_a_moment_is_found_with_few_questions(seconds: float, found: int) -> None:
    node, asked = Node(head=100), list[None]()
    with serving(node) as chain:
        moment = block_time(0) + timedelta(seconds=seconds)
        client = client_of(chain, Clock())
        assert first_block_since(client, moment, low=10, high=80, keep_lease=lambda: asked.append(None)) == found
    assert len(asked) <= 7


def pruned(*, refuses: bool) -> Node:
    """A node that keeps no block before the newest ten, and says so in one way or the other."""
    node = Node(head=100)

    def block(params: list[Any]) -> dict[str, Any] | None:
        if params[0] != "latest" and int(params[0], 16) < 90:
            if refuses:
                raise Error(4444, "pruned history unavailable")
            return None
        return node.block(params[0])

    node.methods["eth_getBlockByNumber"] = block
    return node


@pytest.mark.parametrize("refuses", [True, False], ids=["it refuses", "it answers null"])
def test_where_the_first_endpoint_lacks_old_blocks_the_next_one_is_asked(refuses: bool) -> None:
    with serving(pruned(refuses=refuses), Node(head=100)) as chain:
        client = client_of(chain, Clock())
        assert first_block_since(client, block_time(7), low=0, high=99, keep_lease=lambda: None) == 7
        headers = old_headers(client, [3, 95], keep_lease=lambda: None)
        assert [header.number for header in headers] == [3, 95]


def test_where_no_endpoint_has_old_blocks_no_more_is_said_than_was_asked() -> None:
    said = r"no endpoint of anvil that answers has block 50; .* whole history"
    with serving(pruned(refuses=False), pruned(refuses=False)) as chain, pytest.raises(BlockVanished, match=said):
        first_block_since(client_of(chain, Clock()), block_time(7), low=0, high=99, keep_lease=lambda: None)


def look(*nodes: LogNode, recipients: Sequence[bytes] | None, tokens: Sequence[bytes] = (TOKEN,)) -> list[Hits]:
    """Look for transfers to ADDRESS in SPAN, in a chain of these nodes."""
    with serving(*nodes) as chain:
        client, ours = client_of(chain, Clock()), {ADDRESS}.intersection
        found = hits_in(client, SPAN, tokens=tokens, recipients=recipients, issued=ours, keep_lease=lambda: None)
        return list(found)


@pytest.mark.parametrize("recipients", [(ADDRESS,), None], ids=["the node looks for us", "Postgres looks"])
def test_blocks_with_transfers_to_us_are_hits_and_those_with_others_are_not(recipients: tuple[bytes] | None) -> None:
    ours, theirs = LogNode(head=10), LogNode(head=10, recipients=(PAYER,))
    assert look(ours, recipients=recipients) == [Hits(SPAN, tuple(SPAN), ours.label, is_borne_out=True)]
    assert look(theirs, recipients=recipients) == [Hits(SPAN, (), theirs.label, is_borne_out=True)]


@pytest.mark.parametrize("topics", [2, 4])
def test_a_log_that_is_no_transfer_of_a_token_is_no_hit(topics: int) -> None:
    node = LogNode(head=10)
    log = node.log(7, ADDRESS)
    odd = log | {"topics": [*log["topics"], "0x" + "00" * 32][:topics]}
    node.methods["eth_getLogs"] = lambda _: [odd]
    assert look(node, recipients=None) == [Hits(SPAN, (), node.label, is_borne_out=True)]


@pytest.mark.parametrize("liar_is_first", [True, False])
def test_what_one_endpoint_leaves_out_another_one_tells(liar_is_first: bool) -> None:
    liar, honest = LogNode(head=10, recipients=()), LogNode(head=10)
    nodes = (liar, honest) if liar_is_first else (honest, liar)
    assert look(*nodes, recipients=None) == [Hits(SPAN, tuple(SPAN), nodes[0].label, is_borne_out=True)]


def away() -> LogNode:
    def answer(request: Request) -> None:
        if request[0]["method"] == "eth_getLogs":
            raise Http(503)

    node = LogNode(head=10)
    node.before = answer
    return node


def test_what_one_of_several_endpoints_told_alone_is_not_borne_out() -> None:
    first, other = LogNode(head=10), away()
    assert look(first, other, recipients=None) == [Hits(SPAN, tuple(SPAN), first.label, is_borne_out=False)]


def test_of_the_other_endpoints_one_that_answers_is_enough() -> None:
    first, third = LogNode(head=10, recipients=()), LogNode(head=10)
    assert look(first, away(), third, recipients=None) == [Hits(SPAN, tuple(SPAN), first.label)]


def test_where_no_token_is_listed_nobody_is_asked() -> None:
    node = LogNode(head=10)
    assert look(node, recipients=None, tokens=()) == [Hits(SPAN, (), "", is_borne_out=True)]
    assert node.asked == []
