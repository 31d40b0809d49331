"""Logs of long ranges, from nodes with the limits of real providers."""

from collections.abc import Sequence
from typing import Any

import pytest

from ctrip.blockchain.ranges import MOST_LOGS
from ctrip.domain.limits import Limits
from ctrip.domain.scanning import BlockRange
from ctrip.errors import NodeRefused, NodeUnavailable
from tests.blockchain.nodes import Clock, Http, LogNode, Request, client_of, serving
from tests.factories import ADDRESS, OTHER_TOKEN, PAYER, TOKEN

START_SPAN = 10


def numbers(pieces: Sequence[Any]) -> list[int]:
    return [int(log.block_number, 16) for piece in pieces for log in piece.logs]


def covered(pieces: Sequence[Any]) -> list[int]:
    return [number for piece in pieces for number in piece.blocks]


def test_a_range_is_read_in_pieces_that_grow_while_they_are_allowed() -> None:
    node = LogNode(head=5000)
    with serving(node) as chain:
        calls: list[None] = []
        client = client_of(chain, Clock()).keeping(lambda: calls.append(None))
        pieces = list(client.logs_in(BlockRange(1, 5000), tokens=[TOKEN]))
        assert covered(pieces) == numbers(pieces) == list(range(1, 5001))
        assert [len(piece.blocks) for piece in pieces[:4]] == [10, 20, 40, 80]
        assert len(pieces) == len(node.ranges) < 12
        assert len(calls) == len(node.asked) == 1 + len(pieces), "its head, and each piece"
        assert {piece.endpoint for piece in pieces} == {node.label}
        assert client.limits()[node.label].span > 2000


@pytest.mark.parametrize(
    ("blocks", "span", "words"),
    [
        (500, 5, "eth_getLogs is limited to a {span} range"),
        (1000, 100, "Block range limit exceeded. See more details at https://docs.chainstack.com/docs/limits"),
        (3000, 500, "You can make eth_getLogs requests with up to a {span} block range."),
        (3000, 600, "ranges over {span} blocks are not supported on freetier"),
    ],
)
def test_a_providers_range_limit_is_learnt_from_its_first_refusals(blocks: int, span: int, words: str) -> None:
    node = LogNode(head=blocks)
    node.span, node.words = span, words
    with serving(node) as chain:
        client = client_of(chain, Clock())
        pieces = list(client.logs_in(BlockRange(1, blocks), tokens=[TOKEN]))
        assert covered(pieces) == numbers(pieces) == list(range(1, blocks + 1))
        refused = len(node.ranges) - len(pieces)
        assert refused <= 1 + blocks // span // 64, "one, and one more now and then to see whether it grew"
        assert span // 2 < client.limits()[node.label].span <= span


def test_too_many_results_are_asked_for_in_smaller_pieces_down_to_the_single_block_and_recipient() -> None:
    recipients = [bytes([number]) * 20 for number in range(1, 9)]
    node = LogNode(head=30, recipients=recipients)
    node.results = 4
    with serving(node) as chain:
        client = client_of(chain, Clock())
        pieces = list(client.logs_in(BlockRange(1, 30), tokens=[TOKEN], recipients=recipients))
        assert covered(pieces) == list(range(1, 31))
        assert sorted(numbers(pieces)) == sorted(list(range(1, 31)) * 8)
        node.results = 0
        with pytest.raises(NodeRefused, match="more than 0 results"):
            list(client.logs_in(BlockRange(1, 30), tokens=[TOKEN], recipients=recipients))


def test_many_recipients_are_asked_for_in_calls_that_the_endpoint_accepts() -> None:
    recipients = [number.to_bytes(20) for number in range(1, 2501)]
    node = LogNode(head=20, recipients=[recipients[0], recipients[-1], PAYER])
    node.topics = 500
    with serving(node) as chain:
        client = client_of(chain, Clock())
        (piece, _) = client.logs_in(BlockRange(1, 20), tokens=[TOKEN, OTHER_TOKEN], recipients=recipients)
        assert sorted(numbers([piece])) == sorted([*range(1, 11), *range(1, 11)]), "not those to somebody else"
        assert client.limits()[node.label].topics == 500
        assert list(client.logs_in(BlockRange(1, 20), tokens=[TOKEN], recipients=[]))[-1].logs == ()


def test_no_endpoint_is_asked_beyond_the_head_that_it_told_itself() -> None:
    behind, ahead = LogNode(head=50), LogNode(head=100)
    with serving(behind, ahead) as chain:
        client = client_of(chain, Clock())
        pieces = list(client.logs_in(BlockRange(45, 60), tokens=[TOKEN]))
        assert numbers(pieces) == list(range(45, 61)), "the first would have answered with a part, silently"
        assert {piece.endpoint for piece in pieces} == {ahead.label} and not behind.ranges
        with pytest.raises(NodeUnavailable, match="has no block 101 yet"):
            list(client.logs_in(BlockRange(95, 101), tokens=[TOKEN]))


def test_where_an_endpoint_fails_on_the_way_the_rest_is_read_from_another_by_its_own_limits() -> None:
    first, second = LogNode(head=200), LogNode(head=200)
    second.span = 5

    def fail(request: Request) -> None:
        if request[0]["method"] == "eth_getLogs" and len(first.ranges) == 2:
            raise Http(502)

    first.before = fail
    with serving(first, second) as chain:
        client = client_of(chain, Clock())
        pieces = list(client.logs_in(BlockRange(1, 60), tokens=[TOKEN]))
        assert covered(pieces) == numbers(pieces) == list(range(1, 61))
        assert [len(piece.blocks) for piece in pieces] == [10, 20, *[5] * 6]
        assert client.limits() == {first.label: Limits(100, 40, 1000), second.label: Limits(100, 5, 1000)}


def test_a_range_whose_answers_do_not_come_in_time_is_narrowed_for_the_next_time() -> None:
    clock, node = Clock(), LogNode(head=200)

    def drip(request: Request) -> None:
        if request[0]["method"] == "eth_getLogs":
            clock.now += 9

    with serving(node) as chain:
        client = client_of(chain, clock)
        node.before = drip
        with pytest.raises(NodeUnavailable, match="did not answer whole"):
            list(client.logs_in(BlockRange(1, 60), tokens=[TOKEN]))
        assert client.limits()[node.label].span == START_SPAN // 2


@pytest.mark.parametrize("number", ["0x63", "0x6", "nonsense"])
def test_logs_of_other_blocks_than_were_asked_for_are_not_believed(number: str) -> None:
    liar, honest = LogNode(head=100), LogNode(head=100)
    liar.methods["eth_getLogs"] = lambda _: [honest.log(7, ADDRESS) | {"blockNumber": number}]
    with serving(liar, honest) as chain:
        pieces = list(client_of(chain, Clock()).logs_in(BlockRange(7, 8), tokens=[TOKEN]))
        assert numbers(pieces) == [7, 8]


@pytest.mark.parametrize(("logs_per_block", "sizes"), [(400, [10, 20, 20]), (1500, [10, 5, 5])])
def test_answers_with_more_logs_than_fit_into_memory_are_kept_and_less_is_asked_for(
    logs_per_block: int, sizes: list[int]
) -> None:
    node = LogNode(head=50, recipients=(ADDRESS,) * logs_per_block)
    with serving(node) as chain:
        pieces = list(client_of(chain, Clock()).logs_in(BlockRange(1, 50), tokens=[TOKEN]))
        assert covered(pieces) == list(range(1, 51))
        assert [len(piece.blocks) for piece in pieces[:3]] == sizes
        assert [len(piece.logs) for piece in pieces[:3]] == [logs_per_block * size for size in sizes]
        assert len(pieces[-2].logs) <= MOST_LOGS
