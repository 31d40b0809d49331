"""Endpoints that share a host are as many as there are URLs: each has its own voice, limits and failures."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.transport import labels_of
from ctrip.domain.limits import START, Limits
from ctrip.errors import NodeUnavailable
from tests.blockchain.nodes import Clock, Http, Node, Request, client_of, serving

KEYS = ("first-key", "second-key")


@pytest.mark.parametrize(
    ("urls", "labels"),
    [
        ([], []),
        (["http://a:1/x"], ["a:1"]),
        (["http://a:1/x", "http://b:1/x", "http://a:2/x"], ["a:1", "b:1", "a:2"]),
        (["http://a/x", "https://b/y", "https://me:word@a/z?key=k", "ws://a/"], ["a", "b", "a#2", "a#3"]),
        (["http://a/b#2", "http://a/b"], ["a", "a#2"]),
    ],
)
def test_labels_tell_endpoints_apart_and_show_nothing_but_hosts(urls: list[str], labels: list[str]) -> None:
    assert labels_of(urls) == labels


@contextmanager
def gate() -> Iterator[tuple[Node, ChainClient]]:
    """A gateway, and the client of a chain that has two keys for it."""
    node = Node()
    with serving(node) as chain:
        urls = tuple(f"http://{node.label}/{key}" for key in KEYS)
        yield node, client_of(replace(chain, rpc_urls=urls), Clock())


def test_two_keys_of_one_provider_are_two_endpoints() -> None:
    with gate() as (node, client):
        assert client.endpoints == (node.label, f"{node.label}#2")
        one = client.pinned()
        other = client.pinned(avoiding=[one.endpoint or ""])
        assert (one.endpoint, other.endpoint) == client.endpoints
        other.head()
        assert set(node.paths) == {"/second-key"}
        learnt = Limits(7, 8, 9)
        client.adopt({f"{node.label}#2": learnt})
        assert client.limits() == {node.label: START, f"{node.label}#2": learnt}


def test_where_one_key_has_ended_the_other_one_is_used_and_the_error_tells_which() -> None:
    with gate() as (node, client):

        def refuse(_: Request) -> None:
            raise Http(401)

        def refuse_the_second(_: Request) -> None:
            if node.paths[-1] == "/second-key":
                raise Http(401)

        node.before = refuse_the_second
        with pytest.raises(NodeUnavailable) as failed:
            client.pinned(avoiding=[node.label]).head()
        assert failed.value.detail == f"{node.label}#2 answered HTTP 401"
        assert client.pinned().endpoint == node.label
        assert client.head().number == 100
        node.before = refuse
        with pytest.raises(NodeUnavailable) as failed:
            client.head()
        assert not any(key in failed.value.detail for key in KEYS)
