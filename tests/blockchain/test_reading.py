"""Who keeps the lease while blocks are read, over real HTTP."""

import threading
from collections.abc import Callable

import pytest

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.reading import read_blocks, read_spans, read_step
from ctrip.domain.finality import Finality
from ctrip.domain.scanning import BlockRange, split
from ctrip.errors import LostFence
from tests.blockchain.nodes import Clock, ForkedNode, Http, Request, client_of, serving
from tests.factories import header


class Quiet(ForkedNode):
    """A node whose blocks have no logs."""

    def __init__(self) -> None:
        super().__init__(finalized=85)
        self.methods["eth_getLogs"] = lambda _: []


class Pruned(Quiet):
    """One that has no logs any more."""

    def __init__(self) -> None:
        super().__init__()
        self.before = self._refuse

    def _refuse(self, request: Request) -> None:
        if request[0]["method"] == "eth_getLogs":
            raise Http(503)


def spans(client: ChainClient) -> list[int]:
    wanted = split([BlockRange(1, 90)], most=3)
    told = read_spans(client, wanted, issued=lambda _: set())
    return [each.number for some in told for read in some for each in read.headers]


def test_while_threads_read_spans_the_lease_is_kept_by_whoever_waits_for_them_alone() -> None:
    keepers = list[int]()
    with serving(Quiet()) as chain:
        client = client_of(chain, Clock()).keeping(lambda: keepers.append(threading.get_ident()))
        assert spans(client) == list(range(1, 91))
    assert set(keepers) == {threading.get_ident()}


def test_who_has_lost_the_lease_reads_no_more_spans() -> None:
    def lost() -> None:
        raise LostFence("another run has claimed it")

    with serving(Quiet()) as chain, pytest.raises(LostFence):
        spans(client_of(chain, Clock()).keeping(lost))


STEPS: dict[str, Callable[[ChainClient], object]] = {
    "single blocks": lambda client: list(read_blocks(client, range(1, 50), issued=lambda _: set())),
    "a step": lambda client: read_step(
        client,
        header(90),
        window=lambda: [header(number) for number in range(70, 91)],
        expected=1,
        tags={Finality.FINALIZED: None},
        issued=lambda _: set(),
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_lease_is_kept_after_each_request_of_whichever_endpoint(name: str) -> None:
    nodes, kept = (Pruned(), Quiet()), list[None]()
    with serving(*nodes) as chain:
        STEPS[name](client_of(chain, Clock()).keeping(lambda: kept.append(None)))
    assert len(kept) == sum(len(node.asked) for node in nodes) > 2
