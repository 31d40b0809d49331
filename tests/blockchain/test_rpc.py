"""The pool of a chain's endpoints."""

from dataclasses import replace
from itertools import count

import pytest

from ctrip.blockchain.rpc import RpcPool
from ctrip.errors import NodeUnavailable
from tests.factories import make_chain

NOBODY = "http://127.0.0.1:1"


def test_where_all_endpoints_hang_the_asking_ends_before_the_lease_of_who_asks() -> None:
    seconds = count()  # each look at the clock is a second later, so each endpoint takes about four
    pool = RpcPool(replace(make_chain(), rpc_urls=(NOBODY,) * 6), clock=lambda: float(next(seconds)))
    began = next(seconds)
    with pytest.raises(NodeUnavailable) as failed:
        pool.ask([("eth_blockNumber", [])])
    assert 2 <= failed.value.detail.count("did not answer") < 6, "the second was tried, and not all"
    assert next(seconds) - began <= 20 + len(pool.endpoints), "one look at each is whether it rests"
