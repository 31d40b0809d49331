"""A listed token that did not tell its decimals when its process started is asked again until it does."""

from dataclasses import replace

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.domain.chains import Token
from ctrip.services.inflows import check_balances
from tests.between import Answer, between, forward
from tests.devchain import DevChain
from tests.world import World

pytestmark = pytest.mark.infra

DAI = Token("DAI", b"\xda" * 20, 18)


def tells(decimals: int, *, size: int = 32) -> bytes:
    """The code of a contract that answers every call with a number, and zeros after it where it has more bytes."""
    return bytes((0x60, decimals, 0x60, 0, 0x52, 0x60, size, 0x60, 0, 0xF3))


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    """A world whose chain lists DAI, which is not there."""
    chain = ctx.settings.chains[0]
    listing = replace(chain, tokens=(*chain.tokens, DAI))
    settings = replace(ctx.settings, chains=(listing,))
    return World(replace(ctx, settings=settings, clients={chain.chain_id: ChainClient(listing)}), anvil)


def look(world: World, ctx: Context | None = None) -> list[str]:
    """Look at the balances, which asks the tokens first. Returns what is logged of them."""
    world._due()
    with capture_logs() as lines:
        check_balances(ctx or world.ctx, world.chain.chain_id)
    return [line["event"] for line in lines if line["event"].startswith("token_")]


def is_unconfirmed(world: World) -> float | None:
    labels = {"chain": world.chain.name, "token": DAI.symbol}
    return REGISTRY.get_sample_value("ctrip_token_unconfirmed", labels)


def test_it_is_asked_again_until_its_contract_tells_the_decimals_that_it_is_listed_with(world: World) -> None:
    asked: list[bytes] = []

    def noted(body: bytes) -> Answer:
        asked.append(body)
        return 200, forward(world.anvil.url, body)

    def stands() -> tuple[list[str], float | None]:
        return look(world, ctx), is_unconfirmed(world)

    with between(world.ctx, noted) as ctx:
        assert stands() == (["token_tells_no_decimals"], 1)
        world.anvil.set_code(DAI.address, tells(DAI.decimals, size=64))
        assert stands() == (["token_tells_no_decimals"], 1)
        world.anvil.set_code(DAI.address, tells(6))
        assert stands() == (["token_has_other_decimals"], 1)
        world.anvil.set_code(DAI.address, tells(DAI.decimals))
        assert stands() == ([], 0)
        asked.clear()
        assert stands() == ([], 0)
    assert not [body for body in asked if DAI.address.hex().encode() in body], "what it has told is known"


def test_a_node_that_is_away_keeps_nobody_from_asking_later(world: World) -> None:
    euro = replace(DAI, symbol="EURS", address=b"\xe0" * 20, decimals=2)
    chain = replace(world.chain, tokens=(*world.chain.tokens, euro))
    world.anvil.set_code(euro.address, tells(2))
    settings = replace(world.ctx.settings, chains=(chain,))
    labels = {"chain": chain.name, "token": "EURS"}
    for urls, shown in ((("http://127.0.0.1:1",), 1), (chain.rpc_urls, 0)):
        client = ChainClient(replace(chain, rpc_urls=urls))
        look(world, replace(world.ctx, settings=settings, clients={chain.chain_id: client}))
        assert REGISTRY.get_sample_value("ctrip_token_unconfirmed", labels) == shown
