from contextlib import suppress

import pytest

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.fleet import BALANCES, READING
from ctrip.blockchain.others import MOST_TRIED, others
from ctrip.errors import NodeUnavailable
from tests.blockchain.nodes import Clock, Http, Node, Request, pool_of, serving


def refuse(_: Request) -> None:
    raise Http(503)


def asked_in_turn(client: ChainClient, first: Node) -> list[str]:
    """The labels of those whom `others` tells of besides `first`, which is read; each is asked for its head."""
    found = []
    for other in others(client, heard=[first.label]):
        found.append(other.endpoint or "")
        with suppress(NodeUnavailable):
            other.head()
    return found


def test_others_are_asked_the_best_first_wherever_the_list_has_them() -> None:
    nodes = first, failing, doubted, behind, good, better = [Node() for _ in range(6)]
    behind.head = 50
    with serving(*nodes) as chain:
        pool = pool_of(chain, Clock())
        pool.endpoints[1].failed()
        pool.endpoints[2].distrust()
        pool.survey()
        client = ChainClient(chain, pool=pool)
        found = asked_in_turn(client, first)
    assert found == [node.label for node in (good, better, behind, doubted)]
    assert failing.asked == []


@pytest.mark.parametrize("away", [0, 3, MOST_TRIED - 1])
def test_those_that_do_not_answer_take_nobodys_place(away: int) -> None:
    first, *gone, last = [Node() for _ in range(away + 2)]
    for node in gone:
        node.before = refuse
    with serving(first, *gone, last) as chain:
        client = ChainClient(chain, pool=pool_of(chain, Clock()))
        assert asked_in_turn(client, first)[-1] == last.label
        assert asked_in_turn(client, first) == [last.label], "the others rest"


def test_no_more_are_tried_than_a_run_has_time_for() -> None:
    nodes = [Node() for _ in range(MOST_TRIED + 3)]
    with serving(*nodes) as chain:
        client = ChainClient(chain, pool=pool_of(chain, Clock()))
        assert asked_in_turn(client, nodes[0]) == [node.label for node in nodes[1 : MOST_TRIED + 1]]


def test_who_leaves_off_asks_nobody_further() -> None:
    nodes = [Node() for _ in range(4)]
    with serving(*nodes) as chain:
        client = ChainClient(chain, pool=pool_of(chain, Clock()))
        for other in others(client, heard=[client.pinned().endpoint]):
            other.head()
            break
    assert [len(node.asked) for node in nodes] == [0, 1, 0, 0]


def test_who_needs_a_method_asks_those_that_refused_it_last() -> None:
    nodes = first, refusing, good = [Node() for _ in range(3)]
    with serving(*nodes) as chain:
        pool = pool_of(chain, Clock())
        pool.endpoints[1].pass_over("eth_getBalance")
        client = ChainClient(chain, pool=pool)
        for needs, found in ((BALANCES, (good, refusing)), (READING, (refusing, good))):
            told = [other.endpoint for other in others(client, heard=[first.label], needs=needs)]
            assert told == [node.label for node in found]


@pytest.mark.parametrize(
    ("heard", "most", "told"),
    [((), 9, [0, 1, 2]), ((None,), 9, [0, 1, 2]), ((0, 2), 9, [1]), ((0, 1, 2), 9, []), ((), 2, [0, 1]), ((0,), 0, [])],
)
def test_nobody_is_asked_who_was_heard_and_no_more_than_are_wanted(
    heard: tuple[int | None, ...], most: int, told: list[int]
) -> None:
    nodes = [Node() for _ in range(3)]
    with serving(*nodes) as chain:
        client = ChainClient(chain, pool=pool_of(chain, Clock()))
        labels = [None if at is None else client.endpoints[at] for at in heard]
        found = [other.endpoint for other in others(client, heard=labels, most=most)]
    assert found == [nodes[at].label for at in told]
