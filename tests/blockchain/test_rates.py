"""Providers that allow few calls in a second: whoever is far behind must still come to the head."""

import pytest

from ctrip.blockchain.budget import Budget
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.transport import Call, RateLimited
from ctrip.blockchain.turns import MOST_ALONE_S, MOST_IN_A_ROW, Manner, Turns
from ctrip.domain.limits import Limits
from ctrip.errors import ChainError, LostFence
from tests.blockchain.nodes import Clock, Http, Node, Request, client_of, pool_of, said, serving

HEAD = 100
STEP = 20


class Metered(Node):
    """A node that is paid for so many calls in a second, each call of a batch counted, and refuses more as a whole."""

    def __init__(self, clock: Clock, *, per_second: float, is_inside: bool = False) -> None:
        super().__init__(HEAD)
        self._clock = clock
        self._per_second = self._left = float(per_second)
        self._is_inside = is_inside
        self._at = clock.now
        self.before = self._meter
        self.refused = 0

    def _meter(self, request: Request) -> None:
        self._clock.now += 0.05
        now = self._clock.now
        self._left = min(self._per_second, self._left + (now - self._at) * self._per_second)
        self._at = now
        if len(request) <= self._left:
            self._left -= len(request)
            return
        self.refused += 1
        error = {"code": -32007, "message": f"{self._per_second:.0f}/second request limit reached"}
        if self._is_inside:
            raise Http(200, [{"jsonrpc": "2.0", "id": call["id"], "error": error} for call in request])
        raise Http(429, {"jsonrpc": "2.0", "id": None, "error": error})


def read_to_the_head(client: ChainClient, clock: Clock) -> int:
    """Read as the listener does: head and blocks, then something of each; what fails is begun again a second later."""
    read, lost = 0, 0
    while read < HEAD:
        assert lost < 50, "it comes to nothing"
        pinned = client.pinned()
        try:
            _, blocks = pinned.head_and_blocks(range(read + 1, read + 1 + STEP))
            pinned.headers(block.header.number for block in blocks)
        except ChainError:
            lost += 1
            clock.now += 1
        else:
            read += len(blocks)
    return lost


@pytest.mark.parametrize(("per_second", "is_inside"), [(1, False), (5, False), (5, True), (15, True), (25, False)])
def test_a_provider_that_allows_few_calls_a_second_is_caught_up_with(per_second: int, is_inside: bool) -> None:
    clock = Clock()
    node = Metered(clock, per_second=per_second, is_inside=is_inside)
    with serving(node) as chain:
        began = clock.now
        lost = read_to_the_head(client_of(chain, clock), clock)
        assert clock.now - began <= 3 * (2 * HEAD / per_second), "a third of what is allowed, at the least"
        assert lost <= 1, "what was told already is not asked for again"


def test_two_providers_that_allow_few_calls_a_second_do_not_lead_from_the_one_to_the_other_for_ever() -> None:
    clock = Clock()
    with serving(Metered(clock, per_second=5), Metered(clock, per_second=5)) as chain:
        assert read_to_the_head(client_of(chain, clock), clock) <= 5


def test_a_batch_has_the_calls_of_a_second_and_more_of_them_as_the_budget_grows() -> None:
    budget = Budget()
    assert budget.most_at_once() is None
    budget.spend(21, now=0.0)
    budget.halve(0.0)
    assert budget.most_at_once() == 2
    for second in range(1, 11):
        budget.grow(float(second))
    assert budget.most_at_once() == 12
    for event in range(1, 9):
        budget.halve(100.0 * event)
    assert budget.most_at_once() == 1


def test_as_many_threads_ask_at_once_as_get_on_under_the_limit() -> None:
    clock = Clock()
    with serving(Node()) as chain:
        client = client_of(chain, clock)
        assert client.at_once(24) == 24
    turns = Turns("node.example", clock=clock, pause=clock.wait)
    turns.wait(300)
    turns.limited(1)
    assert (turns.at_once(24), turns.at_once(6)) == (12, 6), "30 calls in a second"
    for _ in range(4):
        clock.now += 10
        turns.limited(1)
    assert turns.at_once(24) == 1


def limited(request: Request) -> None:
    raise Http(429, Retry_After="1")


def test_what_is_begun_waits_for_a_short_pause_and_not_for_ever() -> None:
    clock, node = Clock(), Node()
    with serving(node) as chain:
        pool = pool_of(chain, clock)
        pool.adopt({node.label: Limits(2, 1, 1)})
        times = 0

        def limit_the_second(request: Request) -> None:
            nonlocal times
            times += 1
            if times == 3:  # the first asked for the chain id
                limited(request)

        node.before = limit_the_second
        calls: list[Call] = [("echo", [str(number)]) for number in range(4)]
        assert said(pool, calls) == ["0", "1", "2", "3"]
        assert [call["params"] for request in node.requests[1:3] for call in request][:2] == [["0"], ["1"]]
        assert sum(call["params"] == ["0"] for request in node.requests for call in request) == 1
        node.before, asked = limited, len(node.requests)
        with pytest.raises(RateLimited):
            pool.endpoints[0].ask(calls, Manner(is_bound=True))
        assert len(node.requests) == asked + MOST_IN_A_ROW


def test_whoever_may_ask_another_does_not_wait() -> None:
    clock, first, second = Clock(), Node(), Node()
    with serving(first, second) as chain:
        pool = pool_of(chain, clock)
        first.before = limited
        assert said(pool, [("echo", ["hello"])]) == ["hello"]
        assert (clock.waited, second.asked) == ([], ["echo"])


def test_a_long_pause_is_kept_to_while_another_endpoint_answers_and_tried_now_and_then_where_none_does() -> None:
    clock, first, second = Clock(), Node(), Node()
    with serving(first, second) as chain:
        pool = pool_of(chain, clock)
        first.before = refuse_for_an_hour
        pool.ask([("echo", ["hello"])])
        first.before, asked = lambda _: None, len(first.requests)
        clock.now += MOST_ALONE_S + 1
        pool.ask([("echo", ["hello"])])
        assert (len(first.requests), second.asked) == (asked, ["echo"] * 2)
        pool.endpoints[1].failed()
        pool.ask([("echo", ["hello"])])
        assert first.asked == ["echo"], "the other one rests, and two minutes were enough"


def refuse_for_an_hour(_: Request) -> None:
    raise Http(429, Retry_After="3600")


def test_the_lease_is_kept_between_the_requests_of_a_long_question() -> None:
    node, kept = Node(), list[int]()
    with serving(node) as chain:
        client = client_of(chain, Clock()).keeping(lambda: kept.append(len(node.requests)))
        client.adopt({node.label: Limits(3, 1, 1)})
        client.pinned().headers(range(1, 11))
        assert kept == [2, 3, 4], "after three headers, six, and one; before them was the chain id"
        client.head()
        client.pinned().head_and_blocks([1])
        assert kept == [2, 3, 4, 5, 6]

        def lose() -> None:
            raise LostFence("another run has it")

        with pytest.raises(LostFence):
            client.keeping(lose).headers(range(1, 11))
        assert len(node.requests) == 7, "nothing more is asked by a run that was overtaken"
