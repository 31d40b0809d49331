"""What an operator types to know what was read, and to have it read again."""

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.models import coverage, transfers
from tests.devchain import USDC, DevChain
from tests.tool import Tool
from tests.world import World

pytestmark = pytest.mark.infra


def test_a_gap_is_named_with_what_closes_it_and_a_rescan_closes_it(
    ctrip: Tool, ctx: Context, anvil: DevChain, usdc: bytes
) -> None:
    world = World(ctx, anvil)
    payment = world.ask(5 * USDC, token=usdc)
    anvil.pay_token(usdc, payment.address, 5 * USDC)
    anvil.mine(4)
    world.scan()
    told = ctrip("coverage", world.chain.name, "--json")
    assert told.code == 0
    first, last = told.json["first_block"], told.json["read_block"]
    assert (first, last) == (anvil.block_number() - 3, anvil.block_number())
    assert [(each["symbol"], each["unread"]) for each in told.json["assets"]] == [("ETH", []), ("USDC", [])]
    assert all(each["covered"][0]["endpoint"].startswith("127.0.0.1") for each in told.json["assets"])
    shown = ctrip("coverage", world.chain.name).out
    assert "no gap" in shown
    assert "one endpoint alone told of it" in shown

    with ctx.sessions.begin() as session:
        session.execute(sa.delete(transfers))
        session.execute(sa.delete(coverage).where(coverage.c.token == usdc))
    told = ctrip("coverage", world.chain.name)
    what = f"ctrip rescan {world.chain.name} --from {first} --to {last}"
    assert told.code == 1
    assert f"USDC lacks blocks {first} to {last}" in told.out
    assert what in told.out
    assert what in ctrip("payments", "show", payment.id).out, "this is why it is not paid"

    told = ctrip(*what.split()[1:])
    assert (told.code, told.out) == (0, "4 blocks read again: 1 transfers stored, 0 orphaned\n")
    assert ctrip("coverage", world.chain.name).code == 0
    shown = ctrip("payments", "show", payment.id, "--json").json["read"]
    assert [(each["first_block"], each["last_block"]) for each in shown["covered"]] == [(first, last)]
    assert shown["unread"] == []


def test_what_cannot_be_read_again_is_said_in_one_line(ctrip: Tool, ctx: Context, anvil: DevChain) -> None:
    name, head = World(ctx, anvil).chain.name, anvil.block_number()
    for arguments, error in (
        (("moon", "--from", "1", "--to", "2"), "there is no enabled chain 'moon'; there is anvil"),
        ((name, "--from", "2", "--to", "1"), "there are no blocks from 2 to 1"),
        ((name, "--from", "1", "--to", str(head + 1)), f"was read up to block {head}"),
    ):
        told = ctrip("rescan", *arguments)
        assert (told.code, told.out) == (1, "")
        assert error in told.err
        assert len(told.err.splitlines()) == 1
    assert "no chain 'moon'" in ctrip("coverage", "moon").err
