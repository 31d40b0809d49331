"""The pool of a chain's endpoints: who is asked, and who instead."""

import gzip
import json
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ctrip import metrics
from ctrip.blockchain.balances import balances_at
from ctrip.blockchain.budget import LEAST, LONGEST_WAIT_S, Budget
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.transport import MAX_REPLY_BYTES, Call, RateLimited, retry_after
from ctrip.domain.addresses import NATIVE
from ctrip.domain.finality import Finality
from ctrip.domain.limits import START, Limits
from ctrip.domain.scanning import BlockRange
from ctrip.errors import BlockVanished, NodeRefused, NodeUnavailable
from tests.blockchain.nodes import KEY, Clock, Error, Http, LogNode, Node, Request, client_of, pool_of, said, serving
from tests.factories import NOON, header

ECHO: list[Call] = [("echo", ["hello"])]


def refuse(status: int, body: object = b"", **headers: str) -> Callable[[Request], None]:
    def answer(_: Request) -> None:
        raise Http(status, body, **headers)

    return answer


def forget(_: Request) -> None:
    """Answer as the node itself does."""


def hang_up(_: Request) -> None:
    raise Http(0, None)


# --- failing --------------------------------------------------------------------------------------------------------


def test_where_all_endpoints_hang_the_asking_ends_before_the_lease_of_who_asks() -> None:
    clock, nodes = Clock(), [Node() for _ in range(6)]

    def hang(_: Request) -> None:
        clock.now += 7
        raise Http(0, None)

    for node in nodes:
        node.before = hang
    with serving(*nodes) as chain, pytest.raises(NodeUnavailable) as failed:
        began = clock.now
        pool_of(chain, clock).ask(ECHO)
    assert [len(node.requests) for node in nodes] == [1, 1, 0, 0, 0, 0], "the second was tried, and not all"
    assert failed.value.detail.count("did not answer") == 2
    assert clock.now - began <= 20


def test_an_endpoint_that_fails_again_and_again_rests_longer_each_time_and_not_without_end() -> None:
    clock, first, second = Clock(), Node(), Node()
    with serving(first, second) as chain:
        pool = pool_of(chain, clock)
        first.before = hang_up
        rests = []
        for _ in range(5):
            for _ in range(3):  # threads that had asked at the same time
                pool.endpoints[0].failed()
            began = clock.now
            while pool.endpoints[0].is_resting:
                clock.now += 1
            rests.append(clock.now - began)
        assert rests == [5, 10, 20, 30, 30]
        pool.ask(ECHO)
        assert (first.requests, second.asked) == ([], ["echo"]), "its rest is over, and the other did not fail last"


def test_an_endpoint_that_failed_is_asked_first_again_once_it_has_answered() -> None:
    clock, first, second = Clock(), Node(), Node()
    with serving(first, second) as chain:
        pool = pool_of(chain, clock)
        first.before = hang_up
        pool.ask(ECHO)
        pool.ask(ECHO)
        assert (len(first.requests), second.asked) == (1, ["echo", "echo"]), "it is not tried while it rests"
        first.before = forget
        clock.now += 6
        pool.survey()
        pool.ask(ECHO)
        assert first.asked[-2:] == ["eth_getBlockByNumber", "echo"]


def test_a_single_endpoint_is_asked_although_it_rests() -> None:
    clock, node = Clock(), Node()
    with serving(node) as chain:
        pool = pool_of(chain, clock)
        node.before = hang_up
        with pytest.raises(NodeUnavailable):
            pool.ask(ECHO)
        node.before = forget
        assert said(pool, ECHO) == ["hello"]
        pinned, _ = pool.pinned()
        assert said(pinned, ECHO) == ["hello"]


def test_after_each_failure_an_endpoint_must_show_its_chain_again() -> None:
    clock, node = Clock(), Node()
    with serving(node) as chain:
        pool = pool_of(chain, clock)
        pool.ask(ECHO)
        pool.ask(ECHO)
        assert len(node.requests) == 3, "once for the chain id"
        pool.endpoints[0].failed()
        node.chain_id += 1
        with pytest.raises(NodeUnavailable, match="is on chain id"):
            pool.ask(ECHO)


@pytest.mark.parametrize(
    "question",
    [
        lambda client: client.head().number == 100,
        lambda client: client.headers([7]) == {7: header(7)},
        lambda client: client.head_and_blocks([7])[0].number == 100,
    ],
)
@pytest.mark.parametrize("result", [b'"0xnonsense"', b"[]", b'{"number": "0x64"}', b"7"])
def test_an_endpoint_whose_answers_cannot_be_read_fails_and_another_is_asked(
    result: bytes, question: Callable[[ChainClient], bool]
) -> None:
    clock, first, second = Clock(), Node(), Node()
    first.methods["eth_getBlockByNumber"] = lambda _: json.loads(result)
    with serving(first, second) as chain:
        client = client_of(chain, clock)
        assert question(client)
        asked = len(first.requests)
        assert question(client)
        assert len(first.requests) == asked, "it rests"


@pytest.mark.parametrize(
    "before",
    [
        hang_up,
        refuse(200, b'[{"jsonrpc"'),
        refuse(200, b"<html>"),
        refuse(500, b"<html>"),
        refuse(502, {"jsonrpc": "2.0", "id": 0, "error": {"code": -32603, "message": "no backend is healthy"}}),
        refuse(401, {"jsonrpc": "2.0", "id": 0, "error": {"code": -32600, "message": f"bad key {KEY}"}}),
        refuse(403, {"jsonrpc": "2.0", "id": 0, "error": {"code": -32600, "message": f"see https://host/{KEY}"}}),
        refuse(301, b"", Location="http://127.0.0.1:1/"),
    ],
)
def test_what_is_no_answer_is_a_failure_and_never_shows_the_url(before: Callable[[Request], None]) -> None:
    clock, first, second = Clock(), Node(), Node()
    first.before = before
    with serving(first, second) as chain, capture_logs() as logs:
        pool = pool_of(chain, clock)
        assert said(pool, ECHO) == ["hello"]
        with pytest.raises(NodeUnavailable) as failed:
            pool.endpoints[0].ask(ECHO)
    assert first.label in failed.value.detail
    assert "/v2/" not in failed.value.detail + str(logs)
    assert "://" not in failed.value.detail


NOBODY = b"\x70" * 20
SPAN = BlockRange(7, 8)
GOOD_ENOUGH = {"eth_gasPrice": "0x1", "eth_maxPriorityFeePerGas": "0x1"}


@pytest.mark.parametrize(
    ("method", "told", "question"),
    [
        ("eth_chainId", "nonsense", lambda client: client.head()),
        ("eth_getBlockByNumber", None, lambda client: client.head()),
        ("eth_getBlockByNumber", None, lambda client: client.head_and_headers([7])),
        ("eth_getBlockByNumber", None, lambda client: client.tagged([Finality.SAFE])),
        ("eth_getBlockByNumber", Node(head=8).block("0x8"), lambda client: client.headers([7])),
        ("eth_getTransactionCount", "nonsense", lambda client: client.transaction_count(NOBODY)),
        ("eth_getTransactionCount", 7, lambda client: client.transaction_count(NOBODY)),
        ("eth_getBalance", "nonsense", lambda client: client.balances([(NOBODY, NATIVE)])),
        ("eth_call", "0xnonsense", lambda client: balances_at(client, [NOBODY], block=header(7))),
        ("eth_getLogs", 7, lambda client: list(client.logs_in(SPAN, tokens=[NOBODY]))),
        ("eth_getLogs", [LogNode(9).log(9, NOBODY)], lambda client: list(client.logs_in(SPAN, tokens=[NOBODY]))),
        ("eth_estimateGas", "nonsense", lambda client: client.estimate_gas(sender=NOBODY, recipient=NOBODY)),
        ("eth_gasPrice", "nonsense", lambda client: client.fees()),
        ("eth_gasPrice", 7, lambda client: client.fees()),
        ("eth_call", 7, lambda client: client.decimals(NOBODY)),
    ],
)
def test_what_cannot_be_read_names_the_endpoint_that_told_it_and_which_rests(
    method: str, told: object, question: Callable[[ChainClient], object]
) -> None:
    first, second = Node(), Node()
    for name, result in GOOD_ENOUGH.items():
        first.methods[name] = lambda _, result=result: result  # type: ignore[misc]
    first.methods[method] = lambda _: told
    with serving(first, second) as chain:
        pool = pool_of(chain, Clock())
        with pytest.raises(NodeUnavailable) as failed:
            question(ChainClient(chain, pool=pool).pinned(avoiding=[second.label]))
        assert failed.value.detail.startswith(f"{first.label} ")
        assert failed.value.detail.count(first.label) == 1
        assert "is not to be understood" in failed.value.detail or "another than was asked for" in failed.value.detail
        assert pool.endpoints[0].is_failing


def test_an_error_that_comes_with_a_status_of_its_own_is_still_the_nodes_answer() -> None:
    node = Node()
    error = {"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": "nonce too low"}}
    with serving(node) as chain:
        client = client_of(chain, Clock())
        client.head()
        node.before = refuse(400, error)
        with pytest.raises(NodeRefused) as refused:
            client.send_raw(b"\x01")
        assert (refused.value.rpc_code, refused.value.rpc_message) == (-32000, "nonce too low")


def test_a_reply_that_unpacks_to_more_than_is_read_is_refused_and_the_endpoint_stays() -> None:
    node = Node()
    with serving(node) as chain:
        pool = pool_of(chain, Clock())
        pool.ask(ECHO)
        packed = gzip.compress(b" " * (MAX_REPLY_BYTES + 1), compresslevel=1)
        assert len(packed) < 1_000_000
        node.before = refuse(200, packed, Content_Encoding="gzip")
        with pytest.raises(NodeRefused, match="response too large"):
            pool.results(ECHO)
        assert not pool.endpoints[0].is_resting


# --- history --------------------------------------------------------------------------------------------------------


def pruned(_: object) -> None:
    raise Error(4444, "pruned history unavailable")


def test_what_one_endpoint_has_not_kept_is_asked_of_another() -> None:
    first, second = Node(), Node()
    first.methods["echo"] = pruned
    with serving(first, second) as chain:
        pool = pool_of(chain, Clock())
        assert said(pool, ECHO) == ["hello"]
        assert bytes(pool.ask(ECHO)[0].result) == b'"hello"'
        second.methods["echo"] = pruned
        reply = pool.ask(ECHO)[0]
        assert reply.error is not None and reply.error.code == 4444
        with pytest.raises(NodeRefused, match="pruned history"):
            pool.results(ECHO)
        assert not any(endpoint.is_resting for endpoint in pool.endpoints)


def test_logs_of_a_block_that_nobody_has_say_that_it_vanished() -> None:
    node = Node()

    def unknown(_: object) -> None:
        raise Error(-32000, "unknown block")

    node.methods["eth_getLogs"] = unknown
    with serving(node) as chain, pytest.raises(BlockVanished, match="unknown block"):
        client_of(chain, Clock()).logs([header(7)], tokens=[b"\x70" * 20])


# --- one alone ------------------------------------------------------------------------------------------------------


def test_a_pinned_client_asks_one_endpoint_and_no_other() -> None:
    clock, first, second = Clock(), Node(), Node()
    with serving(first, second) as chain:
        client = client_of(chain, clock)
        one, other = client.pinned(), client.pinned(avoiding=[first.label])
        assert client.endpoints == (first.label, second.label)
        assert (client.endpoint, one.endpoint, other.endpoint) == (None, first.label, second.label)
        first.before = hang_up
        with pytest.raises(NodeUnavailable):
            one.head()
        assert (other.head().number, second.asked) == (100, ["eth_getBlockByNumber"])
        assert client.pinned().endpoint == second.label, "the first one rests"
        with pytest.raises(NodeUnavailable, match="no other endpoint"):
            client.pinned(avoiding=[second.label])
        with pytest.raises(NodeUnavailable, match="no other endpoint"):
            client.pinned(avoiding=client.endpoints)
        second.before = hang_up
        with pytest.raises(NodeUnavailable):
            other.head()
        assert client.pinned().endpoint == first.label, "better one that rests than none"


def test_an_endpoint_that_is_distrusted_rests_whatever_it_answers_and_is_counted() -> None:
    clock, first, second = Clock(), Node(), Node()
    counted = metrics.CHAIN_DISAGREEMENTS.labels(chain="anvil", kind="empty_logs")._value
    before = counted.get()
    with serving(first, second) as chain, capture_logs() as logs:
        client = client_of(chain, clock)
        one = client.pinned()
        one.distrust("empty_logs", "block 7 has logs by its bloom filter")
        assert one.head().number == 100
        assert client.pinned().endpoint == second.label
        clock.now += 31
        assert client.pinned().endpoint == first.label
    assert counted.get() == before + 1
    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert (line["endpoint"], line["kind"], line["chain"]) == (first.label, "empty_logs", "anvil")
    assert KEY not in str(logs)


# --- heads ----------------------------------------------------------------------------------------------------------


def test_an_endpoint_that_lags_is_passed_over_until_it_has_caught_up() -> None:
    clock, first, second = Clock(), Node(head=100), Node(head=100)
    with serving(first, second) as chain:
        client = client_of(chain, clock)
        client.survey()
        assert client.pinned().endpoint == first.label
        for first.head, second.head in ((104, 108), (112, 116)):
            clock.now += 20
            client.survey()
        assert client.pinned().endpoint == second.label
        second.head = 117
        clock.now += 5
        client.pinned().head()
        assert client.pinned().endpoint == second.label, "what the first told is older, and stays so"
        clock.now += 20
        first.head = 114
        client.survey()
        assert client.pinned().endpoint == first.label, "a few blocks are nothing"


@pytest.mark.parametrize(
    ("grows", "is_asked"),
    [
        ((True, True, True), 0),
        ((True, False, True), 0),
        ((False, True, True), 1),  # two of three are ahead of the first
        ((False, False, True), 2),  # one of three, of two that are stuck
    ],
)
def test_one_alone_that_tells_of_a_higher_head_is_asked_first_only_where_the_heads_of_others_stand_still(
    grows: tuple[bool, bool, bool], is_asked: int
) -> None:
    clock, nodes = Clock(), [Node(head=100), Node(head=100), Node(head=120)]
    with serving(*nodes) as chain:
        client = client_of(chain, clock)
        client.survey()
        clock.now += 20
        for node, is_growing in zip(nodes, grows, strict=True):
            node.head += 20 if is_growing else 0
        client.survey()
        assert client.pinned().endpoint == nodes[is_asked].label


@pytest.mark.parametrize(
    ("heads", "is_asked"),
    [
        ([(100, 100), (104, 108)], 0),  # one alone is ahead for the first time: it may have made that up
        ([(104, 108), (112, 116)], 1),
        ([(104, 108), (112, 112), (120, 124)], 0),
        ([(104, 108), (112, 116), (120, 121)], 0),
        ([(104, 108), (112, None), (120, 124)], 0),  # it failed meanwhile
        ([(100, 100), (100, 108)], 1),  # the first one's own head stands still
        ([(1, 100), (21, 101)], 1),  # it grows fast: it synchronises
    ],
)
def test_of_two_endpoints_one_that_lags_is_passed_over_where_that_lasts_or_where_its_head_stands_still(
    heads: list[tuple[int, int | None]], is_asked: int
) -> None:
    clock, nodes = Clock(), (Node(), Node())
    with serving(*nodes) as chain:
        client = client_of(chain, clock)
        for told in heads:
            for node, head in zip(nodes, told, strict=True):
                node.head, node.before = (0, hang_up) if head is None else (head, forget)
            client.survey()
            clock.now += 20
        assert client.pinned().endpoint == nodes[is_asked].label


@pytest.mark.parametrize("tells", [0, 1], ids=["it reaches what the other told before", "the other tells later"])
def test_heads_that_were_not_told_at_once_end_no_lag(tells: int) -> None:
    clock, first, second = Clock(), Node(head=104), Node(head=108)
    with serving(first, second) as chain:
        client = client_of(chain, clock)
        client.survey()
        clock.now += 14
        first.head, second.head = 108, 112
        client.pinned(avoiding=[(second, first)[tells].label]).head()
        client.pinned()
        clock.now += 6
        first.head, second.head = 112, 116
        client.survey()
        assert client.pinned().endpoint == second.label


def test_a_head_that_grew_since_another_was_asked_puts_nobody_behind() -> None:
    clock, first, second = Clock(), Node(head=100), Node(head=100)
    with serving(first, second) as chain:
        client = client_of(chain, clock)
        client.survey()
        clock.now += 12
        second.head = 130
        client.pinned(avoiding=[first.label]).head()
        assert client.pinned().endpoint == first.label, "it was asked before there was block 130"


def test_a_stuck_endpoint_is_found_out_at_once() -> None:
    clock, first, second = Clock(), Node(head=100), Node(head=100)
    with serving(first, second) as chain:
        client = client_of(chain, clock)
        for _ in range(12):
            clock.now += 1
            second.head += 1
            client.survey()
            client.pinned().head()
        assert client.pinned().endpoint == second.label
        assert 2 <= len(second.requests) <= 12


def test_surveys_are_few() -> None:
    clock, first, second = Clock(), Node(head=100), Node(head=100)
    with serving(first, second) as chain:
        client = client_of(chain, clock)
        for second_of_test in range(60):
            clock.now = 2000.0 + second_of_test
            first.head = second.head = 100 + second_of_test
            client.survey()
            client.pinned().head()
        assert second.asked == ["eth_getBlockByNumber"] * 4, "each 15 seconds"
        assert len(first.asked) == 64
    with serving(Node()) as chain:
        client_of(chain, clock).survey()


def test_metrics_say_after_each_survey_who_is_behind_and_who_is_passed_over() -> None:
    clock, first, second, third = Clock(), Node(head=100), Node(head=107), Node(head=100)
    with serving(first, second, third) as chain:
        client = client_of(chain, clock)
        first.before = hang_up
        client.survey()
        assert shown(client) == [(1, None), (0, 0), (0, 7)], "the first has told of no block"
        first.before = forget
        clock.now += 20
        second.head = 115
        client.pinned(avoiding=[first.label, third.label]).distrust("fork", "another block 7")
        client.survey()
        assert shown(client) == [(0, 7), (1, 0), (0, 7)], "nobody has asked for block 115"
        clock.now += 35
        client.survey()
        assert shown(client) == [(0, 15), (0, 0), (0, 15)]
    with serving(Node(head=50)) as chain:
        client = client_of(chain, clock)
        client.survey()
        client.head()
        clock.now += 20
        client.survey()
        assert shown(client) == [(0, 0)], "a single endpoint is not asked, and shown all the same"


def test_an_endpoint_whose_last_answer_was_a_failure_is_shown_as_passed_over_when_its_rest_is_over() -> None:
    clock, first, second = Clock(), Node(), Node()
    with serving(first, second) as chain:
        client, pool = client_of(chain, clock), pool_of(chain, clock)
        first.before = refuse(429, Retry_After="9")
        pool.ask(ECHO)
        pool.endpoints[0].failed()
        clock.now += 7
        pool.survey()
        assert not pool.endpoints[0].is_resting
        assert shown(client)[0][0] == 1, "its limit keeps it from being asked"


def shown(client: ChainClient) -> list[tuple[float, float | None]]:
    """What metrics say of each endpoint: whether it is passed over, and how many blocks it is behind."""
    both = ("ctrip_endpoint_resting", "ctrip_endpoint_behind_blocks")
    said_of = [
        [REGISTRY.get_sample_value(name, {"chain": client.chain.name, "endpoint": label}) for name in both]
        for label in client.endpoints
    ]
    return [(resting or 0, behind) for resting, behind in said_of]


def test_a_slow_endpoint_is_passed_over_for_one_that_is_much_quicker() -> None:
    clock, first, second = Clock(), Node(), Node()
    with serving(first, second) as chain:
        pool = pool_of(chain, clock)
        pool.endpoints[0].latency_s, pool.endpoints[1].latency_s = 3.0, 0.1
        assert pool.pinned()[1].label == second.label
        pool.endpoints[0].latency_s, pool.endpoints[1].latency_s = 0.9, 0.1
        assert pool.pinned()[1].label == first.label


# --- rate limits ----------------------------------------------------------------------------------------------------

IN_20_S = format_datetime(NOON + timedelta(seconds=20), usegmt=True)


@pytest.mark.parametrize(
    ("before", "seconds"),
    [
        (refuse(429, Retry_After="7"), 7),
        (refuse(429, Retry_After=IN_20_S, Date=format_datetime(NOON, usegmt=True)), 20),
        (refuse(503, Retry_After="3"), 3),
        (refuse(429), 1),
        (refuse(429, Retry_After="1800"), 1800),
        (refuse(429, Retry_After="86400"), 3600),
        (refuse(200, {"id": 0, "error": {"code": -32005, "message": "Rate limited. Retry in 1h"}}), 3600),
        (
            refuse(
                429, {"id": 0, "error": {"code": -32005, "message": "rate limited", "data": {"backoff_seconds": 4}}}
            ),
            4,
        ),
        (refuse(200, {"id": 0, "error": {"code": -32029, "message": "Too many requests, retry in 10s"}}), 10),
        (refuse(200, {"id": None, "error": {"code": -32005, "message": "limit exceeded"}}), 1),
        (refuse(200, [{"id": 0, "result": 1}, {"id": 1, "error": {"code": 429, "message": "compute units"}}]), 1),
    ],
)
def test_an_endpoint_that_limits_the_rate_is_left_alone_for_as_long_as_it_says(before, seconds: float) -> None:
    clock, first, second = Clock(), Node(), Node()
    with serving(first, second) as chain:
        pool = pool_of(chain, clock)
        pool.ask(ECHO)
        first.before = before
        assert said(pool, ECHO * 2) == ["hello"] * 2
        first.before, asked = forget, len(first.requests)
        clock.now += seconds - 0.01
        pool.ask(ECHO)
        assert (len(first.requests), second.asked) == (asked, ["echo*2", "echo"]), "another is asked meanwhile"
        clock.now += 0.02
        pool.ask(ECHO)
        assert (first.asked[-1], len(first.requests), clock.waited) == ("echo", asked + 1, [])
        assert not pool.endpoints[0].is_suspect, "it kept its word, and so do we"


def test_where_there_is_no_other_endpoint_a_short_pause_is_waited_for_and_a_long_one_is_told() -> None:
    clock, node = Clock(), Node()
    with serving(node) as chain:
        pool = pool_of(chain, clock)
        pool.ask(ECHO)
        node.before = refuse(429, Retry_After="5")
        with pytest.raises(NodeUnavailable):
            pool.ask(ECHO)
        node.before, asked = forget, len(node.requests)
        assert said(pool, ECHO) == ["hello"]
        assert (clock.waited, len(node.requests)) == ([5.0], asked + 1)
        node.before = refuse(429, Retry_After="60")
        with pytest.raises(RateLimited):
            pool.endpoints[0].ask(ECHO)
        node.before, asked = forget, len(node.requests)
        with pytest.raises(NodeUnavailable, match="left alone for 60 s"):
            pool.ask(ECHO)
        assert (clock.waited, len(node.requests)) == ([5.0], asked), "nobody waits longer than a request may take"


def test_an_endpoint_that_had_enough_is_asked_less_from_then_on() -> None:
    clock, node = Clock(), Node()
    with serving(node) as chain:
        pool = pool_of(chain, clock)
        for _ in range(100):  # 20 calls in a second
            pool.ask(ECHO)
            clock.now += 0.05
        node.before = refuse(429, Retry_After="1")
        with pytest.raises(NodeUnavailable):
            pool.ask(ECHO)
        node.before, began = forget, clock.now
        for _ in range(40):
            pool.ask(ECHO)
        assert 3 <= clock.now - began <= 7, "half of that, and a little more each second"
        assert max(clock.waited) <= 1.0


def test_a_budget_is_halved_once_for_what_was_under_way_together_and_never_below_the_least() -> None:
    budget, now = Budget(), 100.0
    budget.spend(500, now=now)
    budget.halve(now)
    assert budget.rate == pytest.approx(50)
    budget.halve(now + 1)
    assert budget.rate == pytest.approx(50)
    budget.halve(now + 10)
    assert budget.rate is not None and budget.rate < 10, "it had enough at far less than that"
    for later in range(5):
        budget.halve(now + 100 * later)
    assert budget.rate == LEAST
    for tenth in range(101):
        budget.grow(now + 400 + tenth / 10)
    assert budget.rate == pytest.approx(LEAST + 10), "one call per second more in each second"


def test_a_batch_larger_than_the_budget_goes_out_whole_and_those_after_it_wait_for_a_short_time() -> None:
    budget = Budget()
    budget.spend(100, now=0.0)
    budget.halve(0.0)
    assert budget.rate == pytest.approx(10)
    assert budget.wait_s(10.0) == 0.0
    budget.spend(100, now=10.0)
    assert budget.wait_s(10.0) == LONGEST_WAIT_S
    assert budget.wait_s(12.0) == 0.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", None),
        ("12", 12.0),
        (" 12 ", 12.0),
        ("-3", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        (IN_20_S, 20.0),
        (format_datetime(NOON - timedelta(seconds=5), usegmt=True), None),
        ("Fri, 99 Nov 2026 99:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, date=format_datetime(NOON, usegmt=True)) == seconds


# --- batches --------------------------------------------------------------------------------------------------------


def at_most(count: int, error: dict[str, object], status: int = 200) -> Callable[[Request], None]:
    def answer(request: Request) -> None:
        if len(request) > count:
            raise Http(status, error)

    return answer


DRPC = {"code": 31, "message": "Batch of more than 3 requests are not allowed on free tier, to use this feature …"}
GETH = {"code": -32600, "message": "batch too large"}


@pytest.mark.parametrize(
    ("before", "learnt"),
    [
        (at_most(3, {"id": None, "error": DRPC}, 500), 3),
        (at_most(3, [DRPC], 500), 3),  # type: ignore[arg-type]
        (at_most(30, [{"id": 0, "error": GETH}]), 25),  # type: ignore[arg-type]
        (at_most(10, {"id": None, "error": {"code": -32000, "message": "batch limit 10 exceeded: 100 given"}}), 10),
        (at_most(40, {}, 413), 25),
    ],
)
def test_batches_are_split_into_what_the_endpoint_takes_which_is_remembered(before, learnt: int) -> None:
    node = Node()
    with serving(node) as chain:
        pool = pool_of(chain, Clock())
        node.before = before
        calls: list[Call] = [("echo", [str(number)]) for number in range(100)]
        assert said(pool, calls) == [str(number) for number in range(100)]
        assert pool.limits() == {node.label: Limits(learnt, START.span, START.topics)}
        node.requests.clear()
        pool.results(calls[:learnt])
        assert len(node.requests) == 1
        pool.adopt({node.label: Limits(7, 8, 9), "elsewhere": START})
        assert pool.limits() == {node.label: Limits(7, 8, 9)}


def test_calls_that_are_cut_off_because_the_reply_would_be_too_large_are_asked_again() -> None:
    node, size = Node(), 0

    def start(_: Request) -> None:
        nonlocal size
        size = 0

    def large(params: list[str]) -> str:
        nonlocal size
        size += 1
        if size > 16:
            raise Error(-32003, "response too large")
        return params[0]

    node.before, node.methods["echo"] = start, large
    with serving(node) as chain:
        pool = pool_of(chain, Clock())
        calls: list[Call] = [("echo", [str(number)]) for number in range(50)]
        assert said(pool, calls) == [str(number) for number in range(50)]
        assert pool.limits()[node.label].batch in range(8, 17)
        assert len(node.requests) < 12
