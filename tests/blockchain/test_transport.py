from ctrip.blockchain.transport import exchange
from tests.blockchain.nodes import Node, serving

LONG = 300_000


def test_an_answer_that_is_still_looked_into_is_not_overwritten_by_the_next() -> None:
    with serving(Node()) as chain:
        (url,) = chain.rpc_urls
        kept = [exchange(url, [("echo", [letter * LONG])])[0] for letter in "abc"]
        assert [bytes(reply.result) for reply in kept] == [f'"{letter * LONG}"'.encode() for letter in "abc"]


def test_an_answer_may_be_shorter_or_longer_than_the_one_before() -> None:
    with serving(Node()) as chain:
        (url,) = chain.rpc_urls
        for length in (LONG, 1, 2 * LONG, 70_000, 0):
            assert bytes(exchange(url, [("echo", ["a" * length])])[0].result) == f'"{"a" * length}"'.encode()
