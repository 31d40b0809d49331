"""Old blocks: which of them a moment falls into, and which may hold what is looked for."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.history import Hits, check_lineage, count_agreeing, first_block_since, hits_in, old_headers
from ctrip.blockchain.reading import BlocksRead
from ctrip.domain.addresses import hex_text
from ctrip.domain.chains import Token
from ctrip.domain.scanning import BlockRange, Header
from ctrip.domain.transfers import Sighting
from ctrip.errors import BlockVanished, NodeUnavailable
from tests.blockchain.nodes import Clock, Error, Http, LogNode, Node, Request, client_of, serving
from tests.factories import ADDRESS, OTHER_TOKEN, PAYER, TOKEN, block_time, header, tx_hash

SPAN = BlockRange(1, 10)


@pytest.mark.parametrize(
    ("seconds", "found"), [(50, 50), (49.5, 50), (50.5, 51), (10, 10), (3, 10), (80, 80), (80.5, 81), (999, 81)]
)
def test_the_first_block_of_a_moment_is_found_with_few_questions(seconds: float, found: int) -> None:
    node, asked = Node(head=100), list[None]()
    with serving(node) as chain:
        moment = block_time(0) + timedelta(seconds=seconds)
        client = client_of(chain, Clock()).keeping(lambda: asked.append(None))
        assert first_block_since(client, moment, low=10, high=80) == found
    assert 0 < len(asked) <= 7


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
        assert first_block_since(client, block_time(7), low=0, high=99) == 7
        headers = old_headers(client, [3, 95])
        assert [header.number for header in headers] == [3, 95]


def test_where_no_endpoint_has_old_blocks_no_more_is_said_than_was_asked() -> None:
    said = r"no endpoint of anvil that answers has block 50; .* whole history"
    with serving(pruned(refuses=False), pruned(refuses=False)) as chain, pytest.raises(BlockVanished, match=said):
        first_block_since(client_of(chain, Clock()), block_time(7), low=0, high=99)


def hits(numbers: Iterable[int], teller: Node, *, is_borne_out: bool = True) -> list[Hits]:
    """What is found where these blocks of SPAN hold a transfer each."""
    told = {header(number).hash: 1 for number in numbers}
    return [Hits(SPAN, tuple(numbers), teller.label, is_borne_out, frozenset({TOKEN}), told)]


def look(
    *nodes: LogNode, recipients: Sequence[bytes] | None, tokens: Sequence[bytes] = (TOKEN,), is_fee_taken: bool = False
) -> list[Hits]:
    """Look for transfers to ADDRESS in SPAN, in a chain of these nodes."""
    listed = (Token("USDC", TOKEN, 6, fee_on_transfer=is_fee_taken),)
    with serving(*nodes) as chain:
        client, ours = client_of(replace(chain, tokens=listed), Clock()), {ADDRESS}.intersection
        found = hits_in(client, SPAN, tokens=tokens, recipients=recipients, issued=ours)
        return list(found)


@pytest.mark.parametrize("recipients", [(ADDRESS,), None], ids=["the node looks for us", "Postgres looks"])
def test_blocks_with_transfers_to_us_are_hits_and_those_with_others_are_not(recipients: tuple[bytes] | None) -> None:
    ours, theirs = LogNode(head=10), LogNode(head=10, recipients=(PAYER,))
    assert look(ours, recipients=recipients) == hits(SPAN, ours)
    assert look(theirs, recipients=recipients) == hits((), theirs)


@pytest.mark.parametrize("topics", [2, 4])
def test_a_log_that_is_no_transfer_of_a_token_is_no_hit(topics: int) -> None:
    node = LogNode(head=10)
    log = node.log(7, ADDRESS)
    odd = log | {"topics": [*log["topics"], "0x" + "00" * 32][:topics]}
    node.methods["eth_getLogs"] = lambda _: [odd]
    assert look(node, recipients=None) == hits((), node)


@pytest.mark.parametrize("liar_is_first", [True, False])
def test_what_one_endpoint_leaves_out_another_one_tells(liar_is_first: bool) -> None:
    liar, honest = LogNode(head=10, recipients=()), LogNode(head=10)
    nodes = (liar, honest) if liar_is_first else (honest, liar)
    assert look(*nodes, recipients=None) == hits(SPAN, nodes[0])


def test_another_endpoint_is_asked_for_all_blocks_however_few_it_tells_at_once() -> None:
    first, other = LogNode(head=10, recipients=()), LogNode(head=10)
    other.span = 3
    assert look(first, other, recipients=None) == hits(SPAN, first)


def away() -> LogNode:
    def answer(request: Request) -> None:
        if request[0]["method"] == "eth_getLogs":
            raise Http(503)

    node = LogNode(head=10)
    node.before = answer
    return node


def test_what_one_of_several_endpoints_told_alone_is_not_borne_out() -> None:
    first, other = LogNode(head=10), away()
    assert look(first, other, recipients=None) == hits(SPAN, first, is_borne_out=False)


def test_of_the_other_endpoints_one_that_answers_is_enough() -> None:
    first, third = LogNode(head=10, recipients=()), LogNode(head=10)
    assert look(first, away(), third, recipients=None) == hits(SPAN, first)


@pytest.mark.parametrize(
    ("why", "others", "told"),
    [
        ("each log counts", [{"logIndex": "0x1"}], 2),
        ("some nodes count the logs of each transaction by themselves", [{"transactionHash": "0x" + "07" * 32}], 2),
        ("told twice is told once", [{}], 1),
        ("nothing moved", [{"logIndex": "0x1", "data": "0x" + "00" * 32}], 1),
        ("a reorg took it", [{"logIndex": "0x1", "removed": True}], 1),
        ("it is somebody else's", [{"logIndex": "0x1", "topics": None}], 1),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_of_each_block_it_is_known_how_much_any_endpoint_tells_of(
    why: str, others: list[dict[str, Any]], told: int, is_first: bool
) -> None:
    one, another = LogNode(head=10), LogNode(head=10)
    log = one.log(7, ADDRESS)
    elsewhere = {"topics": one.log(7, PAYER)["topics"]}
    one.methods["eth_getLogs"] = lambda _: [
        log,
        *(log | each | (elsewhere if "topics" in each else {}) for each in others),
    ]
    another.methods["eth_getLogs"] = lambda _: [log]
    (found,) = look(*((one, another) if is_first else (another, one)), recipients=None)
    assert (found.numbers, found.told) == ((7,), {header(7).hash: told}), why


@pytest.mark.parametrize("field", ["data", "blockHash", "address"])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_endpoint_whose_logs_cannot_be_decoded_is_passed_over(field: str, is_first: bool) -> None:
    odd, honest, third = LogNode(head=10), LogNode(head=10), LogNode(head=10)
    nonsense = odd.log(7, ADDRESS) | {field: "0xno"}
    odd.methods["eth_getLogs"] = lambda _: [nonsense]
    among = (odd, honest, third) if is_first else (honest, odd, third)
    assert look(*among, recipients=None) == hits(SPAN, honest)


def test_of_a_token_that_takes_a_fee_a_block_may_show_less_than_was_told() -> None:
    (found,) = look(LogNode(head=10), recipients=None, is_fee_taken=True)
    assert (found.numbers, found.told) == (tuple(SPAN), {})


@pytest.mark.parametrize(
    ("shown", "is_enough"),
    [([], False), ([(7, TOKEN)], False), ([(7, TOKEN), (7, OTHER_TOKEN)], False), ([(7, TOKEN), (7, TOKEN)], True)],
)
def test_a_block_that_shows_less_than_was_told_of_is_not_believed(
    shown: list[tuple[int, bytes]], is_enough: bool
) -> None:
    told = {header(7).hash: 2, header(8, "fork").hash: 1}
    found = Hits(SPAN, (7, 8), "", tokens=frozenset({TOKEN}), told=told)
    sightings = [
        Sighting(number, header(number).hash, block_time(number), tx_hash(at), at, token, PAYER, ADDRESS, 1)
        for at, (number, token) in enumerate(shown)
    ]
    read = BlocksRead((header(7), header(8)), tuple(sightings), upgrades=(), endpoint="")
    with (
        serving(Node(head=10)) as chain,
        nullcontext() if is_enough else pytest.raises(NodeUnavailable, match="in block 7"),
    ):
        found.check(client_of(chain, Clock()).pinned(), read)


class OddNode(Node):
    """A node that lacks some blocks, has others than the rest in some places, or tells other times."""

    def __init__(
        self, *, own: Collection[int] = (), lacks: Collection[int] = (), is_away: bool = False, late_s: int = 0
    ) -> None:
        super().__init__(head=100)
        self.own, self.lacks, self.is_away, self.late_s = own, lacks, is_away, late_s
        self.before = self._answers

    def block(self, number: str) -> dict[str, Any] | None:
        told = super().block(number)
        at = 0 if told is None else int(told["number"], 16)
        if told is not None and at in self.own:
            told["hash"] = hex_text(header(at, "fork").hash)
        if told is not None:
            told["timestamp"] = hex(int(told["timestamp"], 16) + self.late_s)
        return None if at in self.lacks else told

    def _answers(self, _: Request) -> None:
        if self.is_away:
            raise Http(503)


OLD, READ = 50, 90
LEFT = range(40, 101)
"""The blocks of one that has left the chain before OLD."""


@pytest.mark.parametrize(
    ("why", "teller", "others", "error"),
    [
        ("alone, and on our chain", OddNode(), [], None),
        ("alone, and on another one", OddNode(own=LEFT), [], "another block 90 than was read"),
        ("alone, and too far behind to tell", OddNode(lacks={READ}), [], None),
        ("borne out", OddNode(), [OddNode()], None),
        ("borne out by one, whoever denies it", OddNode(), [OddNode(own={OLD}), OddNode()], None),
        ("denied by one that has left our chain", OddNode(), [OddNode(own=LEFT)], None),
        ("denied by one on our chain", OddNode(), [OddNode(own={OLD})], "another one for"),
        ("it has left our chain", OddNode(own=LEFT), [OddNode()], "another block 90 than was read"),
        ("two have", OddNode(own=LEFT), [OddNode(own=LEFT), OddNode()], "another block 90 than was read"),
        ("it has its own old block alone", OddNode(own={OLD}), [OddNode()], "another one for"),
        ("the others have pruned it", OddNode(), [OddNode(lacks={OLD}), OddNode(lacks={OLD})], None),
        ("the others are away", OddNode(), [OddNode(is_away=True)], None),
        ("they are away, and it has left", OddNode(own=LEFT), [OddNode(is_away=True)], "another block 90"),
    ],
)
def test_an_old_block_is_believed_of_an_endpoint_on_our_chain_that_none_on_it_denies(
    why: str, teller: OddNode, others: list[OddNode], error: str | None
) -> None:
    fork = "fork" if OLD in teller.own else ""
    with serving(teller, *others) as chain:
        client = client_of(chain, Clock())
        with pytest.raises(NodeUnavailable, match=error) if error else nullcontext():
            check_lineage(client, client.pinned(), header(OLD, fork), read=header(READ))
        has_left = READ in teller.own
        if others and not any(other.is_away for other in others):
            assert (client.pinned().endpoint != teller.label) is has_left, "it is passed over for a while"


MOMENTS: dict[str, tuple[tuple[dict[str, Any], ...], int | None]] = {
    "alone": (({},), 50),
    "alone, and believed": (({"late_s": -9},), 59),
    "another tells the same": (({}, {}), 50),
    "another tells later times": (({"late_s": -9}, {}), None),
    "another tells earlier times": (({"late_s": 9}, {}), None),
    "another tells other times": (({}, {"late_s": -9}), None),
    "another tells that no block is so new": (({"late_s": 99}, {}), None),
    "another tells that there is a block so new": (({"late_s": -99}, {}), None),
    "two tell later times": (({"late_s": -9}, {}, {}), 50),
    "two tell earlier times": (({"late_s": 9}, {}, {}), 50),
    "one of two tells the same": (({}, {"late_s": -9}, {}), 50),
    "another has other blocks": (({}, {"own": range(50, 101)}), None),
    "another keeps no block so old": (({}, {"lacks": range(1, 90)}), 50),
    "another is away": (({}, {"is_away": True}), None),
    "one of two is away, one keeps no block so old": (({}, {"is_away": True}, {"lacks": range(1, 90)}), 50),
    "the first one keeps no block so old": (({"lacks": range(1, 90)}, {}), 50),
}
"""What the endpoints of a chain do, and which block a moment falls into; None where nobody knows who is right."""


@pytest.mark.parametrize("why", MOMENTS)
def test_the_block_of_a_moment_is_found_by_times_that_another_endpoint_bears_out(why: str) -> None:
    nodes, found = MOMENTS[why]
    with serving(*(OddNode(**odd) for odd in nodes)) as chain:
        client = client_of(chain, Clock())
        with pytest.raises(NodeUnavailable) if found is None else nullcontext():
            assert first_block_since(client, block_time(50), low=0, high=100) == found


def test_what_an_endpoint_that_has_left_our_chain_tells_of_is_asked_of_the_next_one() -> None:
    """And none such bears out what another one tells."""
    left, honest, third = LogNode(head=10), LogNode(head=10, recipients=()), LogNode(head=10)

    def check(pinned: ChainClient, headers: Sequence[Header]) -> None:
        if pinned.endpoint == left.label:
            raise BlockVanished(f"block {headers[-1].number} is another one")

    for others, is_borne_out in (((honest,), False), ((honest, third), True)):
        with serving(left, *others) as chain:
            client = client_of(chain, Clock())
            ask = partial(hits_in, client, SPAN, tokens=(TOKEN,), recipients=None, issued={ADDRESS}.intersection)
            (found,) = ask(check=check)
            assert (found.endpoint, found.is_borne_out) == (honest.label, is_borne_out)
            assert old_headers(client, [3, 7], check=check) == [header(3), header(7)]
            with pytest.raises(BlockVanished, match="block 7 is"):
                alone = client.pinned(avoiding=[each.label for each in others])
                old_headers(alone, [3, 7], check=check)


def test_where_no_token_is_listed_nobody_is_asked() -> None:
    node = LogNode(head=10)
    assert look(node, recipients=None, tokens=()) == [Hits(SPAN, (), "", is_borne_out=True)]
    assert node.asked == []


@pytest.mark.parametrize(
    ("others", "count"),
    [
        ((Node,), 1),
        ((Node, lambda: Node(head=80)), 1),
        ((lambda: Node(head=80),), 0),
        ((lambda: OddNode(is_away=True),), 0),
        ((), 0),
    ],
)
def test_other_endpoints_are_asked_whether_old_blocks_are_these(
    others: tuple[Callable[[], Node], ...], count: int
) -> None:
    teller = Node()
    with serving(teller, *(each() for each in others)) as chain:
        client = client_of(chain, Clock())
        assert count_agreeing(client, [header(7), header(90)], told_by=teller.label) == count
        if others == (Node,):
            with pytest.raises(NodeUnavailable, match=f"told of another block 90 than {teller.label}"):
                count_agreeing(client, [header(7), header(90, "b")], told_by=teller.label)


def test_the_lease_is_kept_after_each_request_for_old_blocks_and_their_logs() -> None:
    first, other, kept = LogNode(head=10), LogNode(head=10), list[None]()
    with serving(first, other) as chain:
        client = client_of(chain, Clock()).keeping(lambda: kept.append(None))
        steps: tuple[Callable[[], object], ...] = (
            lambda: old_headers(client, [3, 7]),
            lambda: first_block_since(client, block_time(7), low=0, high=9),
            lambda: count_agreeing(client, [header(7)], told_by=first.label),
            lambda: check_lineage(client, client.pinned(), header(7), read=header(9)),
            lambda: list(hits_in(client, SPAN, tokens=(TOKEN,), recipients=None, issued={ADDRESS}.intersection)),
        )
        for step in steps:
            kept.clear()
            before = len(first.asked) + len(other.asked)
            step()
            assert len(kept) == len(first.asked) + len(other.asked) - before > 0
