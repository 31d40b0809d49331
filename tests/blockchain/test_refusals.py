"""What an endpoint refuses whatever is asked is served by another one; what a contract or the chain refuses is not."""

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.fleet import BALANCES, READING
from ctrip.blockchain.learning import MOST_REFUSED_S, REFUSED_S, Refusals
from ctrip.blockchain.transport import Call
from ctrip.domain.limits import START
from ctrip.domain.scanning import BlockRange
from ctrip.errors import ChainError, NodeRefused, NodeUnavailable
from tests.blockchain.nodes import KEY, Clock, Error, Http, LogNode, Node, Request, client_of, pool_of, said, serving
from tests.factories import ADDRESS, TOKEN, header

INACTIVE = Error(-32000, "your app is inactive")
NO_METHOD = Error(-32601, "the method does not exist/is not available")
NO_PLAN = Error(-32600, "method eth_getLogs is not included in your current plan")
TOO_MANY = Error(-32005, "query returned more than 10000 results")
BY_RANGE = Error(-32602, "blockHash is not supported, use fromBlock and toBlock")
LOCKED = Error(-32000, "Unauthorized: you must authenticate your request with an API key")
UNKNOWN = Error(-32000, "unknown block")
REVERTED = Error(3, "execution reverted: too many requests")
REVERTED_PLAINLY = Error(-32000, "ERC20: transfer amount exceeds balance")
NONCE = Error(-32000, "nonce too low")
OVERSIZED = Error(-32000, "oversized data: transaction size 200000, limit 131072")


def raising(error: Exception) -> Callable[[Any], Any]:
    def answer(_: Any) -> Any:
        raise error

    return answer


def step(client: ChainClient) -> str | None:
    """A step as the listener's: by one endpoint, block, logs and a receipt. Returns which one served it."""
    pinned = client.pinned()
    try:
        pinned.head_and_blocks([7])
        pinned.logs([header(7)], tokens=[TOKEN])
        pinned.receipts([b"\x01" * 32])
    except ChainError:
        return None
    return pinned.endpoint


def served() -> Node:
    node = Node()
    node.methods["eth_getLogs"] = lambda _: []
    node.methods["eth_getTransactionReceipt"] = lambda _: None
    return node


# --- whom a step asks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("eth_getLogs", NO_METHOD),
        ("eth_getLogs", NO_PLAN),
        ("eth_getLogs", TOO_MANY),
        ("eth_getLogs", BY_RANGE),
        ("eth_getLogs", LOCKED),
        ("eth_getBlockByNumber", INACTIVE),
        ("eth_getTransactionReceipt", NO_METHOD),
        ("eth_getTransactionReceipt", Error(-32000, "transaction indexing is in progress")),
    ],
)
def test_a_step_goes_elsewhere_once_an_endpoint_has_refused_what_it_needs(method: str, error: Error) -> None:
    clock, first, second = Clock(), served(), served()
    honest = first.methods[method]
    with serving(first, second) as chain:
        client = client_of(chain, clock)
        first.methods[method] = raising(error)
        assert [step(client) for _ in range(3)] == [None, second.label, second.label]
        clock.now += REFUSED_S
        assert [step(client) for _ in range(2)] == [None, second.label], "now and then it is tried again"
        first.methods[method] = honest
        clock.now += 2 * REFUSED_S
        assert [step(client) for _ in range(2)] == [first.label] * 2
        first.methods[method] = raising(error)
        step(client)
        clock.now += REFUSED_S
        assert step(client) is None, "it served meanwhile: its rest begins anew"


@pytest.mark.parametrize("method", ["eth_getLogs", "eth_getTransactionReceipt", "eth_getBlockByNumber"])
def test_a_block_that_an_endpoint_does_not_have_says_nothing_of_others(method: str) -> None:
    first, second = served(), served()
    with serving(first, second) as chain:
        client = client_of(chain, Clock())
        honest = first.methods[method]
        first.methods[method] = raising(UNKNOWN)
        assert step(client) is None
        first.methods[method] = honest
        assert step(client) == first.label


def ask_a_contract(client: ChainClient) -> None:
    client.decimals(TOKEN)


def estimate(client: ChainClient) -> None:
    client.estimate_gas(sender=ADDRESS, recipient=ADDRESS)


def send(client: ChainClient) -> None:
    client.send_raw(b"\x01")


@pytest.mark.parametrize(
    ("method", "question", "error"),
    [
        ("eth_call", ask_a_contract, REVERTED),
        ("eth_call", ask_a_contract, REVERTED_PLAINLY),
        ("eth_estimateGas", estimate, REVERTED),
        ("eth_estimateGas", estimate, REVERTED_PLAINLY),
        ("eth_sendRawTransaction", send, NONCE),
        ("eth_sendRawTransaction", send, OVERSIZED),
    ],
)
def test_what_a_contract_or_the_chain_refuses_is_the_answer_and_no_fault_of_the_endpoint(
    method: str, question: Callable[[ChainClient], None], error: Error
) -> None:
    first, second = served(), served()
    first.methods[method] = raising(error)
    with serving(first, second) as chain:
        client = client_of(chain, Clock())
        for asked in (client, client.pinned()):
            with pytest.raises(NodeRefused):
                question(asked)
        assert second.requests == [], "nobody else would say anything else"
        assert step(client) == first.label
        assert counted(client, method) == {"refused": 2.0}


def test_a_transaction_goes_out_by_the_next_endpoint_where_the_first_does_not_take_any() -> None:
    first, second = served(), served()
    first.methods["eth_sendRawTransaction"] = raising(NO_METHOD)
    second.methods["eth_sendRawTransaction"] = lambda _: "0x01"
    with serving(first, second) as chain:
        client = client_of(chain, Clock())
        for _ in range(2):
            client.send_raw(b"\x01")
        assert (first.asked, second.asked) == (["eth_sendRawTransaction"], ["eth_sendRawTransaction"] * 2)
        assert step(client) == first.label, "it reads blocks all the same"


def test_what_one_endpoint_refuses_is_asked_of_the_next_at_once_where_any_may_answer() -> None:
    first, second = served(), served()
    first.methods["eth_getLogs"] = raising(NO_PLAN)
    with serving(first, second) as chain:
        client = client_of(chain, Clock())
        assert client.logs([header(7)], tokens=[TOKEN]) == [[]]
        assert client.logs([header(7)], tokens=[TOKEN]) == [[]]
        assert first.asked == ["eth_getLogs"]
        second.methods["eth_getLogs"] = raising(LOCKED)
        with pytest.raises(ChainError, match=r"not included in your current plan|authenticate"):
            client.logs([header(7)], tokens=[TOKEN])


def test_logs_of_a_range_that_an_endpoint_refuses_however_small_are_asked_of_the_next() -> None:
    first, second = LogNode(head=100), LogNode(head=100)
    first.methods["eth_getLogs"] = raising(Error(-32701, "Please specify an address in your request"))
    with serving(first, second) as chain:
        pieces = list(client_of(chain, Clock()).logs_in(BlockRange(1, 60), tokens=[TOKEN]))
        assert [number for piece in pieces for number in piece.blocks] == list(range(1, 61))
        assert len(first.asked) == 2, "the head and one range"


def test_work_that_needs_another_method_is_done_by_another_endpoint() -> None:
    first, second = served(), served()
    with serving(first, second) as chain:
        client = client_of(chain, Clock())
        client.pinned().pass_over("eth_getBalance")
        assert client.pinned(needs=BALANCES).endpoint == second.label
        assert client.pinned(needs=READING).endpoint == first.label
        client.pinned(needs=BALANCES).pass_over("eth_getBalance")
        assert client.pinned(needs=BALANCES).endpoint == first.label, "better one that refused than none"


def test_an_endpoint_that_refuses_is_not_preferred_to_one_that_may_be_asked_a_moment_later() -> None:
    clock, first, second = Clock(), served(), served()
    with serving(first, second) as chain:
        pool = pool_of(chain, clock)
        pool.endpoints[0].pass_over("eth_getLogs")
        second.before = raising(Http(429, Retry_After="2"))
        with pytest.raises(NodeUnavailable):
            pool.endpoints[1].ask([("eth_chainId", [])])
        assert pool.pinned()[1].label == second.label


# --- an endpoint that serves nothing --------------------------------------------------------------------------------


def test_an_endpoint_that_serves_nothing_any_more_rests_as_one_that_is_down() -> None:
    clock, first, second = Clock(), served(), served()
    with serving(first, second) as chain, capture_logs() as logs:
        pool = pool_of(chain, clock)
        pool.ask([("eth_getBlockByNumber", ["latest", False])])
        for method in first.methods:
            first.methods[method] = raising(INACTIVE)
        client = ChainClient(chain, pool=pool)
        assert [step(client) for _ in range(2)] == [None, second.label]
        with pytest.raises(NodeUnavailable, match="does not tell its chain id"):
            pool.endpoints[0].ask([("eth_getBalance", [])])
        assert pool.endpoints[0].is_resting
        assert counted(client, "eth_getBlockByNumber") == {"ok": 1.0, "error": 1.0}
        assert counted(client, "eth_chainId") == {"ok": 1.0, "error": 1.0}, "an alert counts these"
    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert (line["event"], line["endpoint"], line["method"]) == (
        "endpoint_refuses",
        first.label,
        "eth_getBlockByNumber",
    )
    assert KEY not in str(logs)


def test_metrics_show_an_endpoint_as_passed_over_that_refuses_what_reading_takes() -> None:
    first, second = served(), served()
    first.methods["eth_getLogs"] = raising(NO_METHOD)
    with serving(first, second) as chain:
        client = client_of(chain, Clock())
        step(client)
        client.survey()
        both = [
            REGISTRY.get_sample_value("ctrip_endpoint_resting", {"chain": chain.name, "endpoint": label})
            for label in client.endpoints
        ]
        assert both == [1, 0]
        assert counted(client, "eth_getLogs") == {"error": 1.0}


def test_what_is_asked_for_only_where_there_is_some_is_no_reason_to_pass_over() -> None:
    """A block by a tag, a tip, a trace: who asks goes on without."""
    first, second = served(), served()
    first.methods["eth_getBlockByNumber"] = lambda params: (
        raising(Error(-32602, "invalid block tag"))(params) if params[0] == "finalized" else first.block(params[0])
    )
    with serving(first, second) as chain:
        client = client_of(chain, Clock())
        first.methods["debug_traceBlockByHash"] = raising(NO_METHOD)
        assert client.pinned().ask([("eth_getBlockByNumber", ["finalized", False])])[0].error is not None
        assert client.pinned().ask([("debug_traceBlockByHash", [])])[0].error is not None
        assert step(client) == first.label


def test_a_refusal_is_remembered_for_longer_each_time_and_not_without_end() -> None:
    refusals, now, rests = Refusals(), 100.0, []
    for _ in range(7):
        for _ in range(12):  # threads that had asked at the same time
            refusals.note("eth_getLogs", now=now)
        began = now
        while refusals.has_any(["eth_getBlockByNumber", "eth_getLogs"], now=now):
            now += 10
        rests.append(now - began)
    assert rests == [REFUSED_S, 60, 120, 240, 480, MOST_REFUSED_S, MOST_REFUSED_S]
    refusals.forget({"eth_getLogs"})
    refusals.note("eth_getLogs", now=now)
    assert not refusals.has_any(["eth_getLogs"], now=now + REFUSED_S)


def counted(client: ChainClient, method: str) -> dict[str, float]:
    """How many requests of a method the first endpoint answered, by outcome."""
    labels = {"chain": client.chain.name, "endpoint": client.endpoints[0], "method": method}
    found = {
        outcome: REGISTRY.get_sample_value("ctrip_rpc_requests_total", labels | {"outcome": outcome}) or 0.0
        for outcome in ("ok", "refused", "limited", "error")
    }
    return {outcome: count for outcome, count in found.items() if count}


# --- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-32600, "Invalid Request"),
        (-32202, "Batch requests are disabled"),
        (-32700, "parse error"),
        (-32603, "Internal error"),
        (-32601, "Method not found"),
        (-32000, "unknown block"),
    ],
)
def test_an_endpoint_that_takes_no_batches_is_asked_for_one_after_the_other(code: int, words: str) -> None:
    node = Node()

    def refuse_batches(request: Request) -> None:
        if len(request) > 1:
            raise Http(200, {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": words}})

    with serving(node) as chain:
        pool = pool_of(chain, Clock())
        node.before = refuse_batches
        calls: list[Call] = [("echo", [str(number)]) for number in range(20)]
        assert said(pool, calls) == [str(number) for number in range(20)]
        assert pool.limits()[node.label].batch == 1
        assert len(node.requests) <= 1 + 5 + 20, "the chain id, 20 by halves, and each alone"
        node.before = lambda _: None
        for _ in range(5):
            pool.ask(calls)
        assert pool.limits()[node.label].batch > 20, "it may have been a fault of a moment"


def test_an_endpoint_that_refuses_batches_and_single_calls_refuses_the_method() -> None:
    first, second = served(), served()
    first.methods["eth_getBlockByNumber"] = raising(INACTIVE)

    def refuse_batches(request: Request) -> None:
        if len(request) > 1:
            raise Http(200, {"jsonrpc": "2.0", "id": None, "error": INACTIVE.member})

    first.before = refuse_batches
    with serving(first, second) as chain:
        client = client_of(chain, Clock())
        assert [step(client) for _ in range(2)] == [None, second.label]
        assert client.limits()[second.label] == START
