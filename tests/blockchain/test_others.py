from contextlib import suppress

import pytest

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.others import MOST_TRIED, others
from ctrip.errors import NodeUnavailable
from tests.blockchain.nodes import Clock, Http, Node, Request, pool_of, serving


def refuse(_: Request) -> None:
    raise Http(503)


def asked_in_turn(client: ChainClient, first: Node) -> list[str]:
    """The labels of those whom `others` tells of besides `first`, which is read; each is asked for its head."""
    found = []
    for other in others(client, client.pinned(avoiding=set(client.endpoints) - {first.label})):
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
        for other in others(client, client.pinned()):
            other.head()
            break
    assert [len(node.asked) for node in nodes] == [0, 1, 0, 0]
