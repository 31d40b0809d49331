"""What the refusals of a packed call teach: nothing that a passing fault could have said, and nothing for good."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ctrip.blockchain.balances import LEAST, MOST, MOST_REQUESTS, MOST_SINGLE, balances_at, most_at_once
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.fleet import BALANCES
from ctrip.blockchain.learning import ANSWERS_BEFORE_MORE
from ctrip.domain.addresses import ADDRESS_BYTES
from ctrip.errors import NodeRefused
from tests.blockchain.nodes import Clock, Error, Http, Node, Request, client_of, serving
from tests.factories import header

BUSY = Error(-32000, "execution aborted: the node is busy")
BLOCK = header(100)


class Banker(Node):
    """A node that tells balances: an address holds as many wei as its number. `packed` are the sizes of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.packed: list[int] = []
        self.refuses: Callable[[int], bool] = lambda _: False
        """Says of a packed call of so many addresses whether it is refused."""
        self.methods["eth_getBalance"] = lambda params: hex(int(params[0], 16))
        self.methods["eth_call"] = self._packed

    def _packed(self, params: list[Any]) -> str:
        asked = bytes.fromhex(params[0]["data"][2:])
        if len(params) < 3:
            raise Error(-32000, "execution reverted")  # there is no Multicall3
        self.packed.append(len(asked) // ADDRESS_BYTES)
        if self.refuses(self.packed[-1]):
            raise BUSY
        found = (asked[at : at + ADDRESS_BYTES] for at in range(0, len(asked), ADDRESS_BYTES))
        return "0x" + b"".join(each.rjust(32, b"\0") for each in found).hex()


@contextmanager
def asking(node: Banker) -> Iterator[Callable[[int], list[int]]]:
    """Yield what asks a node for the balances of so many addresses, and returns the sizes of its packed calls."""
    with serving(node) as chain:
        client = client_of(chain, Clock()).pinned()

        def ask(many: int) -> list[int]:
            node.packed.clear()
            assert look(client, many) == list(range(1, many + 1))
            return list(node.packed)

        yield ask


def look(client: ChainClient, many: int) -> list[int]:
    addresses = [number.to_bytes(ADDRESS_BYTES) for number in range(1, many + 1)]
    return balances_at(client, addresses, block=BLOCK)


def once() -> Callable[[int], bool]:
    """Refuse the first packed call of more than one address."""
    refusals = iter([True])
    return lambda size: size > 1 and next(refusals, False)


def test_a_fault_that_has_passed_when_it_is_asked_again_teaches_nothing() -> None:
    node = Banker()
    with asking(node) as ask:
        for _ in range(20):
            node.refuses = once()
            assert ask(3_000) == [3_000, 1, 3_000]
        assert ask(3_000) == [3_000]


def test_a_size_that_is_refused_twice_is_halved_and_grows_again() -> None:
    node = Banker()
    node.refuses = lambda size: size > 1_000
    with asking(node) as ask:
        assert ask(3_000) == [3_000, 1, 3_000, 1_500, 1, 1_500, *[750] * 4]
        assert ask(3_000) == [750] * 4
        node.refuses = lambda _: False
        grown = ask(750 * ANSWERS_BEFORE_MORE + 4 * MOST)
        assert set(grown[: ANSWERS_BEFORE_MORE // 2]) == {750}, "not at once"
        assert ask(MOST) == [MOST], "it takes more now, and is asked for more"


def test_however_long_a_node_is_busy_a_call_is_never_smaller_than_any_node_takes() -> None:
    node = Banker()
    node.refuses = lambda size: size > 1
    with asking(node) as ask:
        assert min(size for size in ask(3_000) if size > 1) == LEAST
        assert ask(3_000) == [], "what refuses few of them is asked one by one"
        node.refuses = lambda _: False
        while not (sizes := ask(3_000)):
            pass
        assert sizes[0] <= 3_000
        assert ask(3_000) == [3_000], "and packed again after a while"


def test_a_way_that_is_not_served_is_tried_again_only_after_a_while() -> None:
    node = Banker()
    node.refuses = lambda _: True
    with asking(node) as ask:
        assert ask(100) == [100, 1]
        tries = [len(ask(100)) for _ in range(3 * ANSWERS_BEFORE_MORE)]
        assert sum(tries) in (4, 6), "twice or three times"


@pytest.mark.parametrize(("batch", "most"), [(100, MOST_SINGLE), (3, 3 * MOST_REQUESTS), (1, MOST_REQUESTS)])
def test_no_more_is_asked_of_a_narrow_endpoint_than_it_can_tell_in_time(batch: int, most: int) -> None:
    node = Banker()
    node.refuses = lambda _: True

    def narrow(request: Request) -> None:
        if len(request) > batch:
            fault = {"code": -32005, "message": f"batch size too large: at most {batch}"}
            raise Http(200, {"jsonrpc": "2.0", "id": None, "error": fault})

    node.before = narrow
    with serving(node) as chain:
        client = client_of(chain, Clock()).pinned()
        look(client, 100)
        assert most_at_once(client) == most


@pytest.mark.parametrize(
    ("fault", "is_passed_over"),
    [
        (Error(-32601, "the method eth_getBalance does not exist"), True),
        (Error(-32000, "your app is inactive"), True),
        (Error(-32000, "missing trie node"), False),
    ],
)
def test_an_endpoint_that_tells_no_balance_refuses_and_the_next_look_asks_another_first(
    fault: Error, *, is_passed_over: bool
) -> None:
    node, other = Banker(), Banker()
    node.refuses = lambda _: True
    node.methods["eth_getBalance"] = raising(fault)
    with serving(node, other) as chain:
        client = client_of(chain, Clock())
        with pytest.raises(NodeRefused):
            look(client.pinned(needs=BALANCES), 3)
        assert client.pinned(needs=BALANCES).endpoint == (other if is_passed_over else node).label
        assert client.pinned().endpoint == node.label, "it reads blocks as well as any"


def raising(error: Error) -> Callable[[list[Any]], Any]:
    def refuse(_: list[Any]) -> Any:
        raise error

    return refuse
