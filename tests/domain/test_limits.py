"""The providers' own words, as they were seen in issues and answers, and what they teach."""

from dataclasses import replace

import pytest

from ctrip.domain.limits import (
    MOST,
    START,
    Limits,
    Refusal,
    classify,
    fits,
    grow,
    is_its_own,
    learn,
    lighten,
    seconds_to_wait,
)

ALCHEMY_RATE = (
    "Your app has exceeded its compute units per second capacity. If you have retries enabled, you can safely ignore "
    "this message. If not, check out https://docs.alchemy.com/reference/throughput"
)
ALCHEMY_SIZE = (
    "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit on the "
    "response size, or you can request any block range with a cap of 10K logs in the response. Based on your "
    "parameters and the response size limit, this block range should work: [0x12345, 0x12b44]"
)
CHAINSTACK = "Block range limit exceeded. See more details at https://docs.chainstack.com/docs/limits#evm-range-limits"
DRPC_BATCH = (
    "Batch of more than 3 requests are not allowed on free tier, to use this feature register paid account at drpc.org"
)
FREE_ALCHEMY = (
    "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range. Based on your "
    "parameters, this block range should work: [0x7e9b85, 0x7e9b8e]. Upgrade to PAYG for expanded block range."
)
INFURA_RATE = 'daily request count exceeded, request rate limited {"rate":{"allowed_rps":1,"backoff_seconds":30}}'
NOT_THERE = (
    "missing trie node 5b8c8d0a7b0d7d8d (path ) state 0x5b8c8d0a7b0d is not available, not found"  # geth's path scheme
)


@pytest.mark.parametrize(
    ("who", "code", "text", "asked", "span"),
    [
        ("Alchemy, free", -32600, FREE_ALCHEMY, 2000, 10),
        ("Alchemy, 500", -32600, "You can make eth_getLogs requests with up to a 500 block range.", 501, 500),
        ("QuickNode", -32614, "eth_getLogs is limited to a 10,000 range", 20_000, 10_000),
        ("QuickNode, free", -32615, "eth_getLogs is limited to a 5 range", 10, 5),
        ("Infura", -32602, "range 1000000 exceeds limit of 10000", 1_000_000, 10_000),
        ("Ankr", -32600, "block range is too wide", 3000, 1500),
        ("Ankr, some chains", -32602, "maximum [from, to] blocks distance: 1000", 5000, 1000),
        ("dRPC", 35, "ranges over 10000 blocks are not supported on freetier", 10_001, 10_000),
        ("BSC", -32000, "exceed maximum block range: 5000", 50_000, 5000),
        ("publicnode", -32701, "exceed maximum block range: 50000", 60_000, 50_000),
        ("Chainstack", -32602, CHAINSTACK, 200, 100),
        (
            "Cloudflare",
            -32047,
            "Invalid eth_getLogs request. 'fromBlock'-'toBlock' range too large. Max range: 800",
            900,
            800,
        ),
        ("thirdweb", -32602, "Maximum allowed number of requested blocks is 3500", 4000, 3500),
        ("Avalanche", -32000, "requested too many blocks from 1 to 16777216, maximum is set to 2048", 9000, 2048),
        ("Blast", -32600, "block range exceeds the range allowed for your plan (20000 > 5000).", 20_000, 5000),
        ("Coinbase", -32602, "please limit the query to at most 1,000 blocks", 1500, 1000),
        ("merkle", -32600, "eth_getLogs range is too large, max is 10k blocks", 15_000, 10_000),
        ("Moonbeam", -32603, "block range is too wide (maximum 1024)", 3000, 1024),
        ("Scroll", -32000, "block range is bigger than maxBlockRange", 100, 50),
        (
            "Morph",
            -32000,
            "block range is larger than max block range, block range = 5120, max block range = 5000",
            5120,
            5000,
        ),
        ("Erigon", -32000, "query block range exceeds server limit, narrow your filter: 1000", 4000, 1000),
        ("Besu", -32000, "Requested range exceeds maximum range limit", 10_000, 5000),
        ("reth", -32602, "query exceeds max block range 100000", 200_000, 100_000),
        ("Harmony", -32000, "query must be smaller than size 1024", 2000, 1024),
        ("zkEVM", -32602, "logs are limited to a 10000 block range", 10_001, 10_000),
        ("SimplyVC", -32000, "too wide blocks range, the limit is 100", 1000, 100),
        ("swell", -32000, "block range greater than 2000 max", 3000, 2000),
    ],
)
def test_a_range_that_is_too_wide_teaches_the_number_it_tells(who, code, text, asked, span) -> None:
    assert classify(code, text) is Refusal.RANGE
    assert learn(Limits(100, asked, 1000), code, text, asked=Limits(1, asked, 5)) == Limits(100, span, 1000)


@pytest.mark.parametrize(
    ("who", "code", "text", "asked", "span"),
    [
        (
            "Infura",
            -32005,
            "query returned more than 10000 results. Try with this block range [0xCB3D, 0xCBA0].",
            4000,
            100,
        ),
        ("Alchemy", -32602, ALCHEMY_SIZE, 20_000, 0x800),
        ("geth's forks", -32005, "query returned more than 10000 results", 4000, 2000),
        ("reth", -32602, "query exceeds max results 20000, retry with the range 25766988-25767987", 8000, 1000),
        # https://github.com/paradigmxyz/reth/issues/23810: it suggests what was asked for.
        ("reth again", -32602, "query exceeds max results 20000, retry with the range 100-199", 100, 50),
        ("llama", -32602, "query exceeds max results 20000", 8000, 4000),
        ("Arbitrum", -32000, "logs matched by query exceeds limit of 10000", 9000, 4500),
        ("Erigon", -32000, "query returns too many logs, narrow your filter: 20000", 30_000, 15_000),
    ],
)
def test_too_many_results_narrow_the_range_by_half_or_to_what_is_suggested(who, code, text, asked, span) -> None:
    assert classify(code, text) is Refusal.RESULTS
    assert learn(Limits(100, asked, 1000), code, text, asked=Limits(1, asked, 5)) == Limits(100, span, 1000)


@pytest.mark.parametrize(
    ("who", "code", "text", "asked", "batch"),
    [
        ("geth", -32600, "batch too large", 100, 50),
        ("Erigon", -32000, "batch limit 100 exceeded: 142 requests given", 142, 100),
        ("Besu", -32602, "Number of requests in batch exceeds --rpc-max-batch-size.", 60, 30),
        ("Nethermind", -32005, "Batch size limit exceeded", 80, 40),
        ("dRPC, free", 31, DRPC_BATCH, 20, 3),
        ("1rpc", -32600, "exceeded max batch size of 20", 50, 20),
        ("reth", -32010, "The batch request was too large Exceeded max limit of 25", 100, 25),
        ("Ankr", -32600, "Batch requests are not supported", 2, 1),
    ],
)
def test_a_batch_that_is_too_large_teaches_its_number(who, code, text, asked, batch) -> None:
    assert classify(code, text) is Refusal.BATCH
    assert learn(replace(START, batch=asked), code, text, asked=Limits(asked, 0, 0)) == replace(START, batch=batch)


@pytest.mark.parametrize(
    ("who", "code", "text", "topics"),
    [
        ("geth", -32000, "exceed max addresses or topics per search position", 1000),
        ("Erigon", -32602, "query exceeds the maximum of 1000 addresses or topics per search position", 1000),
        ("reth", -32602, "Invalid params exceeded maximum topics len at line 7 column 5", 1000),
        ("Nethermind", -32602, "Too many topics: maximum is 500", 500),
        ("Nodereal", -32005, "please specify less number of address", 1000),
    ],
)
def test_too_many_recipients_teach_how_many_it_looks_for(who, code, text, topics) -> None:
    assert classify(code, text) is Refusal.TOPICS
    assert learn(replace(START, topics=2000), code, text, asked=Limits(1, 10, 2000)).topics == topics


@pytest.mark.parametrize(
    ("who", "code", "text", "refusal"),
    [
        ("geth, a batch over 25 MB", -32003, "response too large", Refusal.SIZE),
        ("Optimism", -32020, "backend response too large", Refusal.SIZE),
        ("1rpc", -32000, "response size should not greater than 10000000 bytes", Refusal.SIZE),
        ("nginx", 413, "Request Entity Too Large", Refusal.SIZE),
        ("jsonrpsee", -32008, "Response is too big Exceeded max limit of 167772160", Refusal.SIZE),
        ("geth", -32002, "request timed out", Refusal.TIMEOUT),
        ("Infura", -32005, "query timeout exceeded", Refusal.TIMEOUT),
        ("Alchemy", -32000, "Query timeout exceeded. Consider reducing your block range.", Refusal.TIMEOUT),
        ("publicnode", -32000, "execution timeout", Refusal.TIMEOUT),
        ("Alchemy", 429, ALCHEMY_RATE, Refusal.RATE),
        (
            "Alchemy, monthly",
            -32600,
            "Monthly capacity limit exceeded. Visit https://…/billing to upgrade",
            Refusal.RATE,
        ),
        ("Infura", -32005, INFURA_RATE, Refusal.RATE),
        ("Infura", 429, "Too Many Requests", Refusal.RATE),
        ("QuickNode", -32007, "50/second request limit reached - reduce calls per second or upgrade", Refusal.RATE),
        ("Base", -32016, "over rate limit", Refusal.RATE),
        ("BSC", -32005, "limit exceeded", Refusal.RATE),
        ("publicnode", -32029, "Too many requests, reason: call rate limit exhausted, retry in 10s", Refusal.RATE),
        ("Chainstack", -32005, "You've exceeded the RPS limit available on the current plan.", Refusal.RATE),
        ("geth", -32000, NOT_THERE, Refusal.HISTORY),
        ("geth", -32000, "header not found", Refusal.HISTORY),
        ("geth", 4444, "pruned history unavailable", Refusal.HISTORY),
        ("anvil", -32000, "unknown block", Refusal.HISTORY),
        ("Besu", -32000, "World state unavailable", Refusal.HISTORY),
        ("Nethermind", -32001, "Resource not found", Refusal.HISTORY),
        ("Nethermind", -32002, "No state available for block 0x12", Refusal.HISTORY),
        ("Erigon", -32000, "block not found: 1234", Refusal.HISTORY),
        ("Hoodi", -32000, "request beyond head block: requested 12, head 10", Refusal.HISTORY),
        ("geth", -32602, "block range extends beyond current head block", Refusal.HISTORY),
        ("publicnode", -32602, "Archive requests require a personal token", Refusal.HISTORY),
        ("geth", -32601, "the method debug_traceCall does not exist/is not available", Refusal.METHOD),
        ("Infura", -32601, "The method trace_block does not exist/is not available", Refusal.METHOD),
        ("QuickNode", -32600, "method eth_x is not supported on this network", Refusal.METHOD),
        ("GetBlock", -32000, "rpc method is not whitelisted", Refusal.METHOD),
        ("geth", 3, "execution reverted: too many requests", Refusal.OTHER),
        ("a contract's words", -32015, "VM execution error. Reverted: rate limit", Refusal.OTHER),
        ("geth", -32000, "nonce too low", Refusal.OTHER),
        ("geth", -32000, "insufficient funds for gas * price + value", Refusal.OTHER),
        ("geth", -32602, "invalid argument 0: hex string without 0x prefix", Refusal.OTHER),
    ],
)
def test_what_an_error_means_is_told_by_its_text_before_its_code(who, code, text, refusal) -> None:
    assert classify(code, text) is refusal


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Too many requests, reason: call rate limit exhausted, retry in 10s", 10),
        ("rate limited, retry in 250ms", 0.25),
        ("Rate limit exceeded. Try again in 2 min", 120),
        (INFURA_RATE, 30),
        ('{"rate":{"allowed_rps":1,"backoff_seconds":0}}', None),
        ("over rate limit", None),
        ("Rate limited. Retry in 1h", 3600),
        ("rate limit exceeded, try again in 30 minutes", 1800),
        ("retry after 1 hour", 3600),
        ("retry in 1h30m0.5s", 5400.5),
        ("retry in 1 day", 86_400),
        ("retry after 100 milliseconds", 0.1),
    ],
)
def test_how_long_to_wait_is_read_where_the_text_tells_it(text, seconds) -> None:
    assert seconds_to_wait(text) == seconds


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        (Limits(20, 100, 5), Limits(10, 100, 1000)),
        (Limits(1, 100, 5), Limits(20, 50, 1000)),
        (Limits(1, 1, 500), Limits(20, 100, 250)),
        (Limits(1, 1, 1), Limits(20, 100, 1)),
        (Limits(1, 0, 0), Limits(20, 100, 1000)),
    ],
)
def test_an_answer_that_is_too_heavy_takes_away_calls_then_blocks_then_recipients(asked, left) -> None:
    assert learn(Limits(20, 100, 1000), -32003, "response too large", asked=asked) == left
    assert lighten(Limits(20, 100, 1000), asked=asked) == left


def test_what_one_thread_learnt_is_not_halved_again_by_those_that_asked_before() -> None:
    learnt = learn(Limits(100, 10, 1000), -32600, DRPC_BATCH, asked=Limits(100, 0, 0))
    assert learn(learnt, -32600, "batch too large", asked=Limits(100, 0, 0)) == learnt == Limits(3, 10, 1000)


@pytest.mark.parametrize(
    ("code", "text"),
    [(-32600, "Invalid Request"), (-32202, "Batch requests are disabled"), (-32700, "parse error"), (3, "reverted")],
)
def test_a_batch_that_is_refused_in_words_that_teach_nothing_is_halved(code: int, text: str) -> None:
    assert learn(START, code, text, asked=Limits(21, 0, 0)) == replace(START, batch=10)
    assert learn(START, code, text, asked=Limits(1, 5, 5)) == START


@pytest.mark.parametrize(
    ("method", "refusal", "its_own"),
    [
        ("eth_getLogs", Refusal.METHOD, True),
        ("eth_getLogs", Refusal.OTHER, True),
        ("eth_getLogs", Refusal.RESULTS, True),
        ("eth_getLogs", Refusal.HISTORY, False),
        ("eth_call", Refusal.METHOD, True),
        ("eth_call", Refusal.OTHER, False),
        ("eth_estimateGas", Refusal.TIMEOUT, False),
        ("eth_sendRawTransaction", Refusal.SIZE, False),
        ("eth_sendRawTransaction", Refusal.HISTORY, False),
    ],
)
def test_what_another_endpoint_would_serve_is_told_by_the_method_and_the_refusal(method, refusal, its_own) -> None:
    assert is_its_own(method, refusal) is its_own


def test_where_nothing_can_be_learnt_what_was_asked_for_still_fits() -> None:
    single = Limits(1, 1, 1)
    refused = learn(START, -32005, "query returned more than 10000 results", asked=single)
    assert fits(single, refused), "one block, one recipient: asking for less would not help"
    assert fits(Limits(1, 0, 0), learn(START, -32000, "nonce too low", asked=Limits(1, 0, 0)))
    assert not fits(Limits(1, 20, 0), learn(Limits(1, 20, 9), -32600, FREE_ALCHEMY, asked=Limits(1, 20, 0)))


@pytest.mark.parametrize(
    ("asked", "limits"),
    [
        (Limits(1, 10, 5), Limits(3, 20, 100)),
        (Limits(3, 9, 100), Limits(6, 10, 200)),
        (Limits(2, 9, 99), Limits(3, 10, 100)),
    ],
)
def test_limits_grow_where_all_of_them_was_asked_for_and_given(asked, limits) -> None:
    assert grow(Limits(3, 10, 100), asked=asked) == limits


def test_growth_ends_at_a_ceiling_and_takes_nothing_away() -> None:
    limits = START
    for _ in range(20):
        limits = grow(limits, asked=limits)
    assert limits == MOST
    beyond = Limits(500, 50_000, 5000)
    assert grow(beyond, asked=beyond) == beyond
