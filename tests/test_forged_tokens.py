"""Tokens that lie: whatever a contract logs, no payment is credited beyond what its address really got."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from contracts.build import FOLDER
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word
from ctrip.context import Context
from ctrip.domain.addresses import hex_text
from ctrip.domain.chains import Token
from ctrip.domain.payments import Payment, Status
from ctrip.services.audit import audit
from tests.devchain import USDC, DevChain
from tests.factories import asked_of
from tests.world import World

pytestmark = pytest.mark.infra

SPAM = 10_000
AMOUNT = 100 * USDC
WORD = AMOUNT.to_bytes(32)
TWO_WORDS = bytes.fromhex(
    f"36602414603757602060245f37600435337f{TRANSFER_TOPIC.hex()}60205fa3005b5f195f525f1960205260405ff3"
)
"""The code of a token that logs every transfer, and answers `balanceOf` with 64 bytes."""


class OddToken:
    """The contract of contracts/OddToken.vy in a test's hands."""

    def __init__(self, anvil: DevChain) -> None:
        self._anvil = anvil
        bytecode = json.loads((FOLDER / "OddToken.json").read_text())["bytecode"]
        creation = anvil.send(sender=anvil.faucet, to=None, call=bytes.fromhex(bytecode[2:]), gas=hex(3_000_000))
        anvil.mine()
        self.address = bytes.fromhex(anvil.wait_mined(creation)["contractAddress"][2:])
        self.do("mint(address,uint256)", anvil.faucet, 10**6 * USDC)
        anvil.mine()

    def do(self, signature: str, *arguments: Any, gas: int = 500_000) -> None:
        """Call a function of the contract from the faucet, for the next block."""
        types = signature.partition("(")[2].rstrip(")").split(",")
        words = [hex_text(each) if kind == "address" else each for kind, each in zip(types, arguments, strict=True)]
        call = keccak(text=signature)[:4] + encode(types, words)
        self._anvil.send(sender=self._anvil.faucet, to=self.address, call=call, gas=hex(gas))

    def pay(self, to: bytes, amount: int) -> None:
        self.do("transfer(address,uint256)", to, amount)


@pytest.fixture
def odd(ctx: Context, anvil: DevChain) -> OddToken:
    return OddToken(anvil)


def listing(ctx: Context, odd: OddToken, anvil: DevChain, **flags: Any) -> World:
    """A world whose chain lists the odd token beside the others."""
    chain = ctx.settings.chains[0]
    chain = replace(chain, tokens=(*chain.tokens, Token("ODD", odd.address, 6, **flags)))
    settings = replace(ctx.settings, chains=(chain,))
    return World(replace(ctx, settings=settings, clients={chain.chain_id: ChainClient(chain)}), anvil)


@contextmanager
def nothing_is_credited(world: World, *asked: Payment) -> Iterator[None]:
    """What happens within is mined, made final and read, and pays for nothing."""
    yield
    world.anvil.mine(world.chain.confirmations)
    world.scan()
    for payment in asked:
        found = world.payment(payment)
        assert (found.standing.status, found.standing.received, found.confirmed) == (Status.PENDING, 0, 0)
        assert not any(transfer.counts for transfer in world.transfers(payment))


def test_a_contract_that_is_not_listed_pays_for_nothing_whatever_it_calls_itself(
    ctx: Context, odd: OddToken, anvil: DevChain, usdc: bytes
) -> None:
    world = World(ctx, anvil)
    asked = world.ask(AMOUNT, token=usdc)
    namesake = anvil.deploy_token()
    with nothing_is_credited(world, asked):
        odd.pay(asked.address, AMOUNT)  # its symbol() is USDC
        anvil.pay_token(namesake, asked.address, AMOUNT)  # and this is the listed token's very code
    assert world.transfers(asked) == []
    assert audit(world.ctx) == []


def test_logs_that_only_look_like_transfers_pay_for_nothing(ctx: Context, odd: OddToken, anvil: DevChain) -> None:
    world = listing(ctx, odd, anvil)
    asked = world.ask(AMOUNT, token=odd.address)
    ours, from_us = address_word(asked.address), address_word(b"\xaa" * 20)
    with nothing_is_credited(world, asked):
        three, four = "say_three(bytes32,bytes32,bytes32,bytes)", "say_four(bytes32,bytes32,bytes32,bytes32,bytes)"
        odd.do(three, TRANSFER_TOPIC, from_us, b"\1" + ours[1:], WORD)  # bits where an address has none
        odd.do(three, TRANSFER_TOPIC, b"\1" + from_us[1:], ours, WORD)
        odd.do(three, TRANSFER_TOPIC, from_us, ours, WORD[:31])
        odd.do(three, TRANSFER_TOPIC, from_us, ours, WORD + WORD)
        odd.do(three, TRANSFER_TOPIC, from_us, ours, b"")
        odd.do(three, TRANSFER_TOPIC, from_us, ours, bytes(32))
        odd.do(three, keccak(text="Approval(address,address,uint256)"), from_us, ours, WORD)
        odd.do(four, TRANSFER_TOPIC, from_us, ours, WORD, b"")  # an NFT's
        odd.do(four, TRANSFER_TOPIC, from_us, ours, WORD, WORD)
        odd.do("say_two(bytes32,bytes32,bytes)", TRANSFER_TOPIC, from_us, ours + WORD)
    assert world.transfers(asked) == []
    assert audit(world.ctx) == []


def test_among_ten_thousand_logs_of_a_block_those_that_pay_are_found_in_a_second(
    ctx: Context, odd: OddToken, anvil: DevChain, usdc: bytes
) -> None:
    world = listing(ctx, odd, anvil)
    asked = [world.ask(AMOUNT, token=token) for token in (odd.address, usdc)]
    odd.do("spam(uint256)", SPAM // 2, gas=14_000_000)
    odd.pay(asked[0].address, AMOUNT)
    anvil.pay_token(usdc, asked[1].address, AMOUNT)
    odd.do("spam(uint256)", SPAM // 2, gas=14_000_000)
    head = anvil.mine()
    logs = anvil.call("eth_getLogs", {"fromBlock": hex(head), "toBlock": hex(head), "address": hex_text(odd.address)})
    assert len(logs) == SPAM + 1
    began_s = time.process_time()
    world.scan()
    # Our own work, not the dev chain's and not what others do on this machine.
    assert time.process_time() - began_s < 1
    assert [[transfer.amount for transfer in world.transfers(payment)] for payment in asked] == [[AMOUNT], [AMOUNT]]
    assert audit(world.ctx) == []


def test_a_token_that_keeps_a_fee_is_stored_with_what_arrived_and_pays_for_nothing(
    ctx: Context, odd: OddToken, anvil: DevChain, usdc: bytes
) -> None:
    world = listing(ctx, odd, anvil, fee_on_transfer=True)
    asked = world.ask(AMOUNT, token=usdc)
    odd.do("keep_fee(uint256)", 1_000)
    anvil.mine()
    with nothing_is_credited(world, asked):
        odd.pay(asked.address, AMOUNT)
    stored = [(transfer.token, transfer.amount) for transfer in world.transfers(asked)]
    assert stored == [(odd.address, anvil.balance(asked.address, odd.address))]
    assert stored == [(odd.address, AMOUNT * 9 // 10)]
    assert audit(world.ctx) == []


def test_a_token_that_answers_no_balance_keeps_no_other_from_being_paid_with(
    ctx: Context, odd: OddToken, anvil: DevChain, usdc: bytes
) -> None:
    world = listing(ctx, odd, anvil, fee_on_transfer=True)
    asked = world.ask(AMOUNT, token=usdc)
    anvil.set_code(odd.address, TWO_WORDS)
    odd.pay(asked.address, AMOUNT)
    anvil.pay_token(usdc, asked.address, AMOUNT)
    anvil.mine(world.chain.confirmations)
    world.scan()
    assert world.payment(asked).standing.status is Status.CONFIRMED
    stored = {transfer.token: (transfer.amount, transfer.counts) for transfer in world.transfers(asked)}
    assert stored == {usdc: (AMOUNT, True), odd.address: (AMOUNT, False)}


def test_a_transfer_that_returns_false_and_moves_nothing_pays_for_nothing(
    ctx: Context, odd: OddToken, anvil: DevChain
) -> None:
    world = listing(ctx, odd, anvil)
    asked = world.ask(2 * 10**6 * USDC, token=odd.address)  # more than anybody has
    with nothing_is_credited(world, asked):
        odd.pay(asked.address, asked_of(asked).amount)
    assert world.transfers(asked) == []
    assert anvil.balance(asked.address, odd.address) == 0


def test_a_token_whose_balances_move_by_themselves_pays_for_nothing(
    ctx: Context, odd: OddToken, anvil: DevChain, usdc: bytes
) -> None:
    world = listing(ctx, odd, anvil, rebasing=True)
    asked = world.ask(AMOUNT, token=usdc)
    with nothing_is_credited(world, asked):
        odd.pay(asked.address, AMOUNT)
        anvil.mine()
        odd.do("rebase(uint256)", 20_000)
    arrived = sum(transfer.amount for transfer in world.transfers(asked))
    assert AMOUNT <= arrived <= anvil.balance(asked.address, odd.address)
    odd.do("rebase(uint256)", 5_000)
    with nothing_is_credited(world, asked):
        odd.pay(asked.address, AMOUNT)
    assert audit(world.ctx) == []
