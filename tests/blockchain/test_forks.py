import pytest

from ctrip import metrics
from ctrip.blockchain.forks import check_reorg
from ctrip.errors import NodeUnavailable
from tests.blockchain.nodes import Clock, ForkedNode, Http, Request, client_of, serving
from tests.factories import header

LOST = header(90)


class Away(ForkedNode):
    def __init__(self) -> None:
        super().__init__()
        self.before = self._refuse

    def _refuse(self, _: Request) -> None:
        raise Http(503)


def forked() -> ForkedNode:
    return ForkedNode(shared=89)


def keeps() -> ForkedNode:
    return ForkedNode()


def lags() -> ForkedNode:
    """Has the lost block, and has not heard of the ten after it."""
    return ForkedNode(90)


def is_below() -> ForkedNode:
    return ForkedNode(80)


@pytest.mark.parametrize(
    ("others", "is_too_deep"),
    [
        ([], False),
        ([], True),
        ([is_below()], False),
        ([Away()], True),
        ([forked()], True),
        ([keeps(), forked()], False),
        ([lags(), forked(), forked()], True),
    ],
)
def test_a_reorg_is_followed_where_most_of_those_who_can_tell_say_the_same(
    others: list[ForkedNode], is_too_deep: bool
) -> None:
    with serving(forked(), *others) as chain:
        client = client_of(chain, Clock())
        pinned = client.pinned()
        check_reorg(
            client, pinned, lost=LOST, instead=header(90, "fork"), head=header(103, "fork"), is_too_deep=is_too_deep
        )
        assert client.pinned().endpoint == pinned.endpoint


@pytest.mark.parametrize(
    ("others", "is_too_deep", "is_passed_over"),
    [
        ([keeps()], False, False),
        ([lags()], False, False),
        ([is_below()], True, False),
        ([is_below(), Away()], True, False),
        ([keeps(), keeps()], False, True),
        ([lags(), lags()], False, True),
        ([lags(), keeps()], True, True),
        ([keeps(), keeps(), forked()], False, False),
    ],
)
def test_a_reorg_is_not_followed_where_as_many_deny_it_and_who_is_denied_by_most_is_passed_over(
    others: list[ForkedNode], is_too_deep: bool, is_passed_over: bool
) -> None:
    first = forked()
    with serving(first, *others) as chain:
        client = client_of(chain, Clock())
        counted = metrics.CHAIN_DISAGREEMENTS.labels(chain=chain.name, kind="fork")._value
        before = counted.get()
        with pytest.raises(NodeUnavailable, match="another block 90"):
            check_reorg(
                client,
                client.pinned(),
                lost=LOST,
                instead=header(90, "fork"),
                head=header(103, "fork"),
                is_too_deep=is_too_deep,
            )
        assert (client.pinned().endpoint != first.label) is is_passed_over
        assert counted.get() == before + 1


def test_a_block_that_a_node_does_not_tell_though_its_head_is_beyond_is_not_gone() -> None:
    with serving(forked()) as chain:
        client = client_of(chain, Clock())
        with pytest.raises(NodeUnavailable, match="has no block 90"):
            check_reorg(client, client.pinned(), lost=LOST, instead=None, head=header(103), is_too_deep=True)
        check_reorg(client, client.pinned(), lost=LOST, instead=None, head=header(89, "fork"), is_too_deep=False)


@pytest.mark.parametrize("kind", ["blocks", "headers", "head_and_blocks"])
def test_a_block_that_was_given_for_another_number_is_not_taken(kind: str) -> None:
    node = ForkedNode()
    node.methods["eth_getBlockByNumber"] = lambda params: node.block("0x50" if params[0] == "0x4e" else params[0])
    with serving(node) as chain:
        client = client_of(chain, Clock())
        with pytest.raises(NodeUnavailable, match="block 80 was given for block 78"):
            getattr(client, kind)([77, 78])
