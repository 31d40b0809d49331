from collections.abc import Sequence
from typing import Any

import pytest

from ctrip.blockchain.tags import tags_told
from ctrip.domain.finality import Finality
from ctrip.domain.scanning import Header, Tagged
from tests.blockchain.nodes import Clock, ForkedNode, Http, Request, client_of, serving
from tests.factories import block_time, header

READ = [header(number) for number in range(97, 101)]
"""The block that the cursor stands on, and three more that were read just now."""
WINDOW = [header(number) for number in range(70, 98)]
FAR = 10**7
FIRST_READ = {False: 97, True: 95}
"""Block 96 is one after which others are asked, though the first one's word stands still."""


def ask(*nodes: ForkedNode, known: int | None = 60, is_time: bool = False) -> int | None:
    """What is taken as finalized where it was block `known` before."""
    before = None if known is None else Tagged(known, block_time(known))
    with serving(*nodes) as chain:
        client = client_of(chain, Clock())
        told = tags_told(
            client,
            client.pinned(),
            {Finality.FINALIZED: before},
            read=[header(number) for number in range(FIRST_READ[is_time], 101)],
            window=lambda: WINDOW,
        )
    found = told.get(Finality.FINALIZED)
    assert found in (None, found and header(found.number))
    return None if found is None else found.number


class Away(ForkedNode):
    def __init__(self) -> None:
        super().__init__(finalized=90)
        self.before = self._refuse

    def _refuse(self, _: Request) -> None:
        raise Http(503)


@pytest.mark.parametrize(
    ("node", "then"),
    [
        (ForkedNode(finalized=90), 90),
        (ForkedNode(finalized=98), 98),
        (ForkedNode(finalized=65), 65),  # deeper than the window
        (ForkedNode(106, finalized=103), 100),  # no further than was read
        (ForkedNode(finalized=60), None),  # nothing new
        (ForkedNode(finalized=50), None),
        (ForkedNode(finalized=None), None),  # it does not know the word
        (ForkedNode(finalized=FAR), None),  # beyond its own head
        (ForkedNode(finalized=101), None),
        (ForkedNode(shared=85, finalized=90), None),  # not the block that was read
        (ForkedNode(shared=85, finalized=98), None),
    ],
)
def test_a_node_alone_is_believed_about_our_own_blocks_up_to_its_head(node: ForkedNode, then: int | None) -> None:
    assert ask(node) == then


@pytest.mark.parametrize(
    ("others", "then"),
    [
        ([ForkedNode(finalized=98)], 98),
        ([ForkedNode(105, finalized=104)], 98),
        ([ForkedNode(finalized=80)], 80),  # it is behind, so that is all
        ([ForkedNode(finalized=None)], None),
        ([ForkedNode(finalized=None), ForkedNode(finalized=98)], 98),
        ([Away()], None),
        ([Away(), ForkedNode(finalized=98)], 98),
        ([ForkedNode(shared=85, finalized=98)], None),  # final is another block
        ([ForkedNode(shared=85, finalized=99)], None),
        ([ForkedNode(105, shared=85, finalized=104)], None),
        ([ForkedNode(90, finalized=FAR)], None),
        ([ForkedNode(60, finalized=98)], None),
    ],
)
def test_where_there_are_others_one_of_them_must_reach_the_same_block(
    others: list[ForkedNode], then: int | None
) -> None:
    assert ask(ForkedNode(finalized=98), *others) == then


def test_another_node_is_asked_only_when_a_word_has_moved_on() -> None:
    first, second = ForkedNode(finalized=90), ForkedNode(finalized=90)
    with serving(first, second) as chain:
        client = client_of(chain, Clock())

        def told(known: dict[Finality, Tagged | None], window: Sequence[Header] = WINDOW) -> dict[Finality, Header]:
            return tags_told(client, client.pinned(), known, read=READ, window=lambda: window)

        assert told({}) == {}
        assert (first.asked, second.asked) == ([], [])
        assert told({Finality.FINALIZED: Tagged(90, block_time(90))}) == {}
        assert (first.asked, second.asked) == (["eth_getBlockByNumber*2"], [])
        found = told({Finality.SAFE: None, Finality.FINALIZED: Tagged(80, block_time(80))})
        assert found == {Finality.SAFE: header(90), Finality.FINALIZED: header(90)}
        assert (first.asked[1:], second.asked) == (
            ["eth_getBlockByNumber*3"],
            ["eth_getBlockByNumber*3"],
        )


class Slow(ForkedNode):
    """Its clock is an hour behind in all of its blocks; their hashes are the others'."""

    def block(self, number: str) -> dict[str, Any] | None:
        told = super().block(number)
        return told and told | {"timestamp": hex(int(told["timestamp"], 16) - 3600)}


def stuck(at: int = 50) -> ForkedNode:
    """A node that lost its peers: neither its head nor its word moves."""
    return ForkedNode(at, finalized=at - 20)


def old() -> ForkedNode:
    """A node whose word stands still, though it has all blocks."""
    return ForkedNode(finalized=60)


def mute() -> ForkedNode:
    return ForkedNode(finalized=None)


def forked() -> ForkedNode:
    return ForkedNode(shared=85, finalized=99)


@pytest.mark.parametrize(
    ("others", "then"),
    [
        *(([useless(), ForkedNode(finalized=98)], 98) for useless in (stuck, old, mute, forked, Away)),
        ([stuck(), old(), mute(), forked(), Away(), ForkedNode(finalized=98)], 98),
        ([ForkedNode(finalized=80), ForkedNode(finalized=98)], 98),
        ([ForkedNode(finalized=98), ForkedNode(finalized=80)], 98),
        ([ForkedNode(finalized=80), ForkedNode(finalized=90), old()], 90),  # the furthest that two words reach
        ([stuck(), old()], None),
        ([ForkedNode(90, finalized=75), old()], 75),  # below the first one's block, which it has not yet
    ],
)
def test_who_is_stuck_or_knows_no_words_keeps_nobody_waiting(others: list[ForkedNode], then: int | None) -> None:
    assert ask(ForkedNode(finalized=98), *others) == then


@pytest.mark.parametrize(
    ("first", "other", "then"),
    [
        (65, ForkedNode(finalized=65), 65),
        (65, ForkedNode(finalized=66), 65),
        (66, ForkedNode(finalized=65), 65),
        (65, ForkedNode(finalized=98), 65),
        (98, ForkedNode(finalized=65), 65),
        (65, ForkedNode(shared=61, finalized=65), None),
        (65, ForkedNode(shared=61, finalized=66), None),
        (66, ForkedNode(shared=61, finalized=65), None),
        (65, Slow(finalized=65), None),
        (65, Slow(finalized=66), None),
        (66, Slow(finalized=65), None),
        (98, Slow(finalized=98), None),
    ],
)
def test_of_a_block_deeper_than_the_window_two_tell_hash_and_time(
    first: int, other: ForkedNode, then: int | None
) -> None:
    assert ask(ForkedNode(finalized=first), other) == then


@pytest.mark.parametrize(
    ("first", "others", "then"),
    [
        (old(), [ForkedNode(finalized=98), ForkedNode(finalized=98)], 98),
        (old(), [ForkedNode(finalized=98), ForkedNode(finalized=90)], 90),
        (old(), [ForkedNode(105, finalized=104), ForkedNode(105, finalized=103)], 100),
        (old(), [ForkedNode(finalized=65), ForkedNode(finalized=65)], 65),
        (old(), [ForkedNode(shared=61, finalized=65), ForkedNode(shared=61, finalized=65)], None),
        (mute(), [ForkedNode(finalized=98), Away(), ForkedNode(finalized=98)], 98),
        (ForkedNode(finalized=FAR), [ForkedNode(finalized=98), ForkedNode(finalized=98)], 98),
        (old(), [ForkedNode(finalized=98)], None),
        (old(), [ForkedNode(finalized=98), old()], None),
    ],
)
def test_where_the_word_of_the_one_that_is_read_stands_still_two_others_take_it_further_now_and_then(
    first: ForkedNode, others: list[ForkedNode], then: int | None
) -> None:
    assert ask(first, *others, is_time=True) == then
    assert ask(first, *others) is None


def test_who_lists_two_endpoints_asks_the_other_nothing_while_the_word_stands_still() -> None:
    second = ForkedNode(finalized=98)
    assert ask(old(), second, is_time=True) is None
    assert second.asked == []
