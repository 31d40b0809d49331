"""Whatever a node writes, it is an answer or it is none: nobody who asks stumbles over it."""

from collections.abc import Callable
from typing import Any

import pytest

from ctrip.blockchain.client import ChainClient
from ctrip.domain.addresses import NATIVE
from ctrip.domain.scanning import BlockRange
from tests.blockchain.nodes import Clock, Http, LogNode, Request, client_of, pool_of, said, serving
from tests.factories import ADDRESS, TOKEN

DEEP = 100_000
NESTED = b"[" * DEEP + b"]" * DEEP
RUBBISH = {
    "no end": b"[" * DEEP,
    "a result": b'{"id":0,"result":' + NESTED + b"}",
    "beside the result": b'{"id":0,"result":"0x1","more":' + NESTED + b"}",
    "in a batch": b'[{"id":0,"result":"0x1","more":' + NESTED + b"}]",
    "an error": b'{"id":0,"error":{"code":-32000,"message":"no","data":' + NESTED + b"}}",
    "another form": b'{"id":0,"result":7}',
    "no numbers": b'{"id":0,"result":[{"topics":[],"blockNumber":"zz"}]}',
    "no text": b'{"id":0,"result":"\xff"}',
    "no text in a block": b'{"id":0,"result":{"number":"0x1","hash":"\xff","parentHash":"0x","timestamp":"0x1"}}',
}
QUESTIONS: dict[str, Callable[[ChainClient], object]] = {
    "the head": lambda client: client.head().number,
    "headers": lambda client: list(client.headers([90])),
    "whole blocks": lambda client: len(client.blocks([90])),
    "head and blocks": lambda client: client.head_and_blocks([91, 92])[0].number,
    "logs of a range": lambda client: [len(piece.logs) for piece in client.logs_in(BlockRange(90, 91), tokens=[TOKEN])],
    "balances": lambda client: client.balances_told([(ADDRESS, TOKEN), (ADDRESS, NATIVE)]),
}


class Honest(LogNode):
    def __init__(self) -> None:
        super().__init__(100)
        self.methods |= {"eth_call": lambda _: "0x" + "7".zfill(64), "eth_getBalance": lambda _: "0x7"}


def writes(body: bytes, *, status: int = 200, all_of_it: bool = False) -> Callable[[Request], None]:
    """Let a node write this, whatever it is asked; it still says which chain it is on unless it is `all_of_it`."""

    def answer(request: Request) -> None:
        if all_of_it or request[0]["method"] != "eth_chainId":
            raise Http(status, body)

    return answer


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize("written", RUBBISH.values(), ids=RUBBISH)
def test_what_cannot_be_decoded_is_a_failure_and_the_next_endpoint_is_asked(
    written: bytes, question: Callable[[ChainClient], object]
) -> None:
    goes_on_with_the_next(question, writes(written))


@pytest.mark.parametrize("written", RUBBISH.values(), ids=RUBBISH)
@pytest.mark.parametrize("how", [{"status": 400}, {"all_of_it": True}], ids=str)
def test_nor_is_it_an_answer_with_another_status_or_to_who_it_is(how: dict[str, Any], written: bytes) -> None:
    goes_on_with_the_next(QUESTIONS["whole blocks"], writes(written, **how))


def goes_on_with_the_next(question: Callable[[ChainClient], object], before: Callable[[Request], None]) -> None:
    first, second = Honest(), Honest()
    first.before = before
    with serving(first, second) as chain:
        clock = Clock()
        client = client_of(chain, clock)
        assert question(client) == question(client_of(chain, clock).pinned(avoiding=[first.label]))
        assert client.pinned().endpoint == second.label, "the first one rests"


@pytest.mark.parametrize("written", [b"[" * DEEP, b'{"error":' + NESTED])
def test_an_error_that_cannot_be_decoded_says_what_its_status_says(written: bytes) -> None:
    first = Honest()
    first.before = writes(written, status=429)
    with serving(first, Honest()) as chain:
        pool = pool_of(chain, Clock())
        assert said(pool, [("echo", ["hello"])]) == ["hello"]
        assert pool.endpoints[0].wait_s() > 0, "it limits the rate"
        assert not pool.endpoints[0].is_failing


@pytest.mark.parametrize("written", [RUBBISH["another form"], RUBBISH["no numbers"], RUBBISH["a result"]])
def test_logs_that_cannot_be_decoded_are_a_failure_of_who_told_its_head_well(written: bytes) -> None:
    first, second = Honest(), Honest()

    def answer(request: Request) -> None:
        if request[0]["method"] == "eth_getLogs":
            raise Http(200, written)

    first.before = answer
    with serving(first, second) as chain:
        client = client_of(chain, Clock())
        (piece,) = client.logs_in(BlockRange(90, 91), tokens=[TOKEN])
        assert piece.endpoint == second.label
        assert client.pinned().endpoint == second.label, "the first one rests"
