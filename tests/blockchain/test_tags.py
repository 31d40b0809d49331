from collections.abc import Sequence

import pytest

from ctrip.blockchain.tags import tags_told
from ctrip.domain.finality import Finality
from ctrip.domain.scanning import Header, Tagged
from tests.blockchain.nodes import Clock, ForkedNode, Http, Request, client_of, serving
from tests.factories import block_time, header

READ = [header(number) for number in range(96, 101)]
"""The block that the cursor stands on, and four more that were read just now."""
WINDOW = [header(number) for number in range(70, 97)]
FAR = 10**7


def ask(*nodes: ForkedNode, known: int | None = 60) -> int | None:
    """What is taken as finalized where it was block `known` before."""
    before = None if known is None else Tagged(known, block_time(known))
    with serving(*nodes) as chain:
        client = client_of(chain, Clock())
        told = tags_told(
            client,
            client.pinned(),
            {Finality.FINALIZED: before},
            read=READ,
            window=lambda: WINDOW,
            keep_lease=lambda: None,
        )
    found = told.get(Finality.FINALIZED)
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
            return tags_told(client, client.pinned(), known, read=READ, window=lambda: window, keep_lease=lambda: None)

        assert told({}) == {}
        assert (first.asked, second.asked) == ([], [])
        assert told({Finality.FINALIZED: Tagged(90, block_time(90))}) == {}
        assert (first.asked, second.asked) == (["eth_getBlockByNumber*2"], [])
        found = told({Finality.SAFE: None, Finality.FINALIZED: Tagged(80, block_time(80))})
        assert found == {Finality.SAFE: header(90), Finality.FINALIZED: header(90)}
        assert (first.asked[1:], second.asked) == (
            ["eth_getBlockByNumber*3"],
            ["eth_getBlockByNumber*3", "eth_getBlockByNumber"],
        )
