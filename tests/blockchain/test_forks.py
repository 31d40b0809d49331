from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from ctrip import metrics
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.forks import borne_out_time, check_lacking, check_reorg, check_shared
from ctrip.blockchain.others import alone
from ctrip.domain.forks import is_young
from ctrip.domain.scanning import Header
from ctrip.errors import NodeUnavailable
from tests.blockchain.nodes import Clock, ForkedNode, Http, Request, client_of, serving
from tests.factories import block_time, header

LOST = header(90)


class Away(ForkedNode):
    def __init__(self) -> None:
        super().__init__()
        self.before = refuse


def refuse(_: Request) -> None:
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


def is_below_forked() -> ForkedNode:
    return ForkedNode(80, shared=70)


@pytest.mark.parametrize(
    ("others", "is_too_deep"),
    [
        ([], False),
        ([], True),
        ([is_below()], False),
        ([Away()], False),
        ([forked()], True),
        ([forked(), Away()], True),
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
        ([Away()], True, False),
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


# --- blocks that one endpoint tells of ------------------------------------------------------------------------------


class Shifted(ForkedNode):
    """Its clock is wrong, in some blocks or in all of them."""

    def __init__(self, seconds: int, *, of: range = range(1000)) -> None:
        super().__init__()
        self.seconds, self.of = seconds, of

    def block(self, number: str) -> dict[str, Any] | None:
        told = super().block(number)
        if told is not None and int(told["number"], 16) in self.of:
            told["timestamp"] = hex(int(told["timestamp"], 16) + self.seconds)
        return told


class Short(ForkedNode):
    """It has few blocks, and tells of a head that may be beyond them."""

    def __init__(self, head: int, *, first: int) -> None:
        super().__init__(head)
        self.first = first

    def block(self, number: str) -> dict[str, Any] | None:
        return super().block(number) if number == "latest" or self.first <= int(number, 16) <= 100 else None


class Pruned(ForkedNode):
    """It keeps no blocks so old, and says so by null."""

    def block(self, number: str) -> dict[str, Any] | None:
        return None if number != "latest" and int(number, 16) < 95 else super().block(number)


class Cut(ForkedNode):
    """It tells what nobody can read."""

    def block(self, number: str) -> dict[str, Any] | None:
        return {"number": "0x" + "f" * 999}


class Idle(ForkedNode):
    """It has not come so far, though it is younger."""

    def __init__(self) -> None:
        super().__init__(80)

    def block(self, number: str) -> dict[str, Any] | None:
        told = super().block(number)
        return told and {**told, "timestamp": hex(int(block_time(95).timestamp()))}


Make = Callable[[], ForkedNode]
PATIENCE = timedelta(seconds=30)
YOUNG, OLD = block_time(60), block_time(91)
"""Since when blocks are young: block 90 is, or is not."""


def young(after: datetime) -> Callable[[Header, timedelta], bool]:
    """Blocks from after this moment are young, and so are those that have been told of for less than PATIENCE."""
    return partial(is_young, now=after + PATIENCE, patience=PATIENCE)


def disputes(kind: str) -> float:
    return metrics.CHAIN_DISAGREEMENTS.labels(chain="anvil", kind=kind)._value.get()


def shares(
    others: Sequence[Make], after: datetime, *, headers: Sequence[Header] = (LOST,), told_for: timedelta = PATIENCE
) -> str:
    """What becomes of blocks of which the first of some endpoints tells."""
    first, before, clock = ForkedNode(), disputes("fork"), Clock()
    with serving(first, *(make() for make in others)) as chain:
        client = client_of(chain, clock)
        client.head()
        clock.now += told_for.total_seconds()
        try:
            check_shared(client, headers, told_by=first.label, is_young=young(after))
        except NodeUnavailable as error:
            assert "told of a block 90" in error.detail
            assert "that 0 other" not in error.detail
            if client.pinned().endpoint != first.label:
                return "passed over"
            return "disputed" if disputes("fork") > before else "not yet"
    return "shared"


SHARED: dict[str, tuple[Sequence[Make], str, str, str]] = {
    "a single one is believed": ((), "shared", "shared", "shared"),
    "another has it": ((keeps,), "shared", "shared", "shared"),
    "another has it, and just so": ((lags,), "shared", "shared", "shared"),
    "another has another": ((forked,), "disputed", "disputed", "disputed"),
    "another has another time": ((lambda: Shifted(3600),), "disputed", "disputed", "disputed"),
    "another is younger and has none": ((Idle,), "disputed", "disputed", "disputed"),
    "another is behind, or stuck": ((is_below,), "not yet", "not yet", "shared"),
    "another keeps no block so old": ((Pruned,), "not yet", "not yet", "shared"),
    "another is away": ((Away,), "not yet", "not yet", "shared"),
    "another tells nonsense": ((Cut,), "not yet", "not yet", "shared"),
    "one of two has it": ((forked, keeps), "shared", "shared", "shared"),
    "one of two has it, one is stuck": ((is_below, keeps), "shared", "shared", "shared"),
    "two have another": ((forked, forked), "passed over", "passed over", "passed over"),
    "two are younger and have none": ((Idle, Idle), "passed over", "passed over", "passed over"),
    "two are behind, or stuck": ((is_below, is_below), "not yet", "not yet", "shared"),
    "another is behind on a fork": ((is_below_forked,), "disputed", "disputed", "shared"),
    "two are behind on a fork": ((is_below_forked, is_below_forked), "passed over", "passed over", "shared"),
    "two are behind, one on a fork": ((is_below, is_below_forked), "disputed", "disputed", "shared"),
    "one has another, one is stuck": ((forked, is_below), "disputed", "disputed", "disputed"),
    "one has another, one is away": ((forked, Away), "disputed", "disputed", "disputed"),
    "one is stuck, one is away": ((is_below, Away), "not yet", "not yet", "shared"),
    "one is stuck, one is pruned": ((is_below, Pruned), "not yet", "not yet", "shared"),
    "both are away": ((Away, Away), "not yet", "not yet", "shared"),
}
"""What becomes of a block that is young by its time, of one that is told of only now, and of an old one."""


@pytest.mark.parametrize("name", SHARED)
def test_a_block_that_others_must_have_is_believed_of_one_alone_only_where_they_cannot_tell(name: str) -> None:
    others, *expected = SHARED[name]
    assert [shares(others, YOUNG), shares(others, OLD, told_for=PATIENCE / 2), shares(others, OLD)] == expected


@pytest.mark.parametrize(("first", "last", "told"), [(86, 89, "shared"), (80, 85, "disputed"), (90, 90, "disputed")])
def test_of_several_blocks_another_must_have_each(first: int, last: int, told: str) -> None:
    differs = Shifted(3600, of=range(first, last + 1))
    assert shares((lambda: differs,), OLD, headers=[header(85), LOST]) == told


TIMED: dict[str, tuple[Sequence[Make], str, str]] = {
    "another tells the same": ((keeps,), "as told", "as told"),
    "another tells another time": ((lambda: Shifted(9),), "disputed", "disputed"),
    "another has another block": ((forked,), "disputed", "disputed"),
    "another is younger and has none": ((Idle,), "disputed", "disputed"),
    "another is behind, or stuck": ((is_below,), "not yet", "as told"),
    "another is away": ((Away,), "not yet", "as told"),
    "another keeps no block so old": ((Pruned,), "not yet", "as told"),
    "a third bears it out": ((lambda: Shifted(9), keeps), "as told", "as told"),
    "a third is away": ((lambda: Shifted(9), Away), "disputed", "disputed"),
    "a third is stuck": ((lambda: Shifted(9), is_below), "disputed", "disputed"),
    "one is stuck, a third bears it out": ((is_below, keeps), "as told", "as told"),
    "two tell another time": ((lambda: Shifted(9), lambda: Shifted(9)), "passed over", "passed over"),
    "two tell two other times": ((lambda: Shifted(9), lambda: Shifted(8)), "passed over", "passed over"),
    "both are stuck": ((is_below, is_below), "not yet", "as told"),
}


def timed(others: Sequence[Make], after: datetime, *, told_for: timedelta = PATIENCE) -> str:
    """What becomes of the time that the first of some endpoints tells."""
    first, before, clock = ForkedNode(), disputes("time"), Clock()
    with serving(first, *(make() for make in others)) as chain:
        client = client_of(chain, clock)
        client.head()
        clock.now += told_for.total_seconds()
        try:
            told = borne_out_time(client, LOST, told_by=first.label, is_young=young(after))
        except NodeUnavailable:
            assert disputes("time") == before + 1
            return "disputed" if client.pinned().endpoint == first.label else "passed over"
        assert told in (None, LOST)
        return "not yet" if told is None else "as told"


@pytest.mark.parametrize("name", TIMED)
def test_a_time_that_ends_payments_is_borne_out_by_another(name: str) -> None:
    others, young, old = TIMED[name]
    told = (timed(others, YOUNG), timed(others, OLD, told_for=PATIENCE / 2), timed(others, OLD))
    assert told == (young, young, old)


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ((keeps, keeps), 0),
        ((lambda: Shifted(-9), lambda: Shifted(-9)), -9),  # who told of it has taken that back
        ((keeps, lambda: Shifted(-9), lambda: Shifted(-9)), -9),
        ((lambda: Shifted(-9), keeps, keeps), 0),
        ((lambda: Shifted(-9), Away), -9),
        ((Away, Away), 0),
        ((keeps, lambda: Shifted(-9)), None),
        ((keeps, lambda: Shifted(-9), Away), None),
    ],
)
def test_of_a_stored_block_the_time_is_what_two_tell_now(nodes: Sequence[Make], told: int | None) -> None:
    with serving(*(make() for make in nodes)) as chain:
        client = client_of(chain, Clock())
        if told is None:
            with pytest.raises(NodeUnavailable, match="block 90"):
                _stored(client)
        else:
            assert _stored(client) == replace(LOST, time=LOST.time + timedelta(seconds=told))


def _stored(client: ChainClient) -> Header | None:
    return borne_out_time(client, LOST, told_by=None, is_young=young(OLD))


def test_what_an_endpoint_told_before_it_went_away_is_borne_out_by_another() -> None:
    first = ForkedNode()
    with serving(first, keeps(), keeps()) as chain:
        client = client_of(chain, Clock())
        client.head()
        first.before = refuse
        with pytest.raises(NodeUnavailable):
            alone(client, first.label).head()
        check_shared(client, [LOST], told_by=first.label, is_young=young(YOUNG))
        assert borne_out_time(client, LOST, told_by=first.label, is_young=young(YOUNG)) == LOST


@pytest.mark.parametrize(("head", "is_false"), [(100, False), (10_000, True)], ids=["pruned", "a head that is none"])
def test_who_lacks_a_block_is_distrusted_only_where_it_lacks_those_just_below_its_head(
    head: int, is_false: bool
) -> None:
    first, before = Short(head, first=70), disputes("head")
    with serving(first, keeps()) as chain:
        client = client_of(chain, Clock())
        client.head()
        pinned = client.pinned()
        check_lacking(pinned, head - 3)  # several nodes behind one address
        with pytest.raises(NodeUnavailable, match="no block 50"):
            check_lacking(pinned, 50)
        assert (disputes("head") > before, client.pinned().endpoint == first.label) == (is_false, False)
