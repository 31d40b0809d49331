"""A story of deposits on one chain by one seed: paid whole, in parts, three at once, taken by reorgs, or never."""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from ctrip.database import cursors, events
from ctrip.domain.addresses import checksum_address, hex_text
from ctrip.domain.events import EventType
from ctrip.domain.payments import Payment, Status
from tests.chaos.canonical import CanonicalChain, Paid
from tests.chaos.town import CONFIRMATIONS, Street, Town
from tests.devchain import ETHER, USDC
from tests.factories import asked_of
from tests.lying_node import Script, draw_scripts
from tests.node_lies import Fork
from tests.waiting import wait_until
from tests.world import World

DEEPEST = 12
HEALED_WITHIN_S = 60
_STEPS = 16
LEAP = 60
"""Blocks that come at once, as after an outage: they are caught up with by spans."""


class Shop(World):
    """A world that workers of their own read: nothing here scans."""

    def __init__(self, town: Town, street: Street, merchant_id: str) -> None:
        self.ctx, self.anvil, self.merchant_id = town.ctx, street.chain, merchant_id
        chain = town.ctx.settings.chain(street.chain_id)
        assert chain is not None
        self.chain = chain


@dataclass(frozen=True)
class _Sent:
    """A signed transaction, and in which block it stands; None: in none."""

    raw: bytes
    block: int | None = None


@dataclass
class Deposits:
    """Tell it once with `live`, from a thread of its own; then `check` it. `dice` decide everything but the time."""

    town: Town
    street: Street
    seed: int
    seconds: float
    merchant_id: str
    told: list[str] = field(default_factory=list)
    healed_after_s: float = 0.0

    def __post_init__(self) -> None:
        self._dice = Random(self.seed)
        self._shop = Shop(self.town, self.street, self.merchant_id)
        self._sent: list[_Sent] = []
        self._confirmable: dict[bytes, int] = {}
        self._scripts: tuple[Script, Script] = ((), ())
        self.kills_at = sorted(self._dice.uniform(0.1, 0.9) * self.seconds for _ in range(self._dice.randrange(3)))

    # --- telling ----------------------------------------------------------------------------------------------------

    def live(self) -> None:
        """Tell the story, let the nodes heal, and wait until the rows say what the chain says."""
        chain = self.street.chain
        chain.drop_pool()
        self._first = chain.mine(DEEPEST + 1)
        self._canonical = CanonicalChain(chain, self.street.usdc, since=self._first)
        self.asked = self._ask()
        self._payers = iter(self.street.payers)
        waiting = self._transactions()
        self._begin()
        began = self._began = time.monotonic()
        for step in range(_STEPS):
            share = -(-len(waiting) // (_STEPS - step))
            self._step([waiting.pop() for _ in range(min(share, len(waiting)))])
            _pause_until(began + self.seconds * (step + 1) / _STEPS)
        self.street.heal()
        self._heal()

    def _ask(self) -> list[Payment]:
        usdc, dice = self.street.usdc, self._dice
        asked = [self._shop.ask(dice.randrange(1, 5) * ETHER) for _ in range(3)]
        asked += [self._shop.ask(dice.randrange(3, 500) * USDC, token=usdc) for _ in range(5)]
        self._unpaid = [self._shop.ask(ETHER), self._shop.ask(100 * USDC, token=usdc)]
        return asked + self._unpaid

    def _begin(self) -> None:
        self._scripts = draw_scripts(self._dice, seconds=self.seconds)
        targets = [(payment.address, asked_of(payment).token, asked_of(payment).amount) for payment in self._unpaid]
        for node, script in zip(self.street.nodes, self._scripts, strict=True):
            node.follow(script, targets=targets)
        self.street.socket.follow(Random(self.seed))

    def _transactions(self) -> list[bytes]:
        """Whole, in parts, too little; three transfers of one payment and of several payments in one transaction."""
        whole, parts, short, *tokens = self.asked[:8]
        signed = [self._coin(whole.address, asked_of(whole).amount)]
        signed += [self._coin(parts.address, amount) for amount in _split(asked_of(parts).amount, 2)]
        signed += [self._coin(short.address, asked_of(short).amount // 2)]
        one, two, *three = tokens
        signed += [self._tokens([(one.address, asked_of(one).amount)])]
        signed += [self._tokens([(two.address, amount)]) for amount in _split(asked_of(two).amount, 3)]
        signed += [self._tokens([(three[0].address, amount) for amount in _split(asked_of(three[0]).amount, 3)])]
        halves = [(three[1].address, amount) for amount in _split(asked_of(three[1]).amount, 2)]
        signed += [self._tokens([*halves, (three[2].address, asked_of(three[2]).amount)])]
        self._dice.shuffle(signed)
        return signed

    def _coin(self, to: bytes, amount: int) -> bytes:
        return self._signed({"to": checksum_address(to), "value": amount, "gas": 21_000})

    def _tokens(self, payments: list[tuple[bytes, int]]) -> bytes:
        arguments = encode(["address[]", "uint256[]"], [[hex_text(to) for to, _ in payments], [a for _, a in payments]])
        call = keccak(text="transferMany(address[],uint256[])")[:4] + arguments
        return self._signed({"to": checksum_address(self.street.usdc), "value": 0, "gas": 400_000, "data": call})

    def _signed(self, fields: Mapping[str, Any]) -> bytes:
        payer = next(self._payers)
        nonce = int(self.street.chain.call("eth_getTransactionCount", payer.address, "latest"), 16)
        fees = {"maxFeePerGas": 50 * 10**9, "maxPriorityFeePerGas": 10**9, "chainId": self.street.chain_id}
        return bytes(payer.sign_transaction({**fields, **fees, "nonce": nonce}).raw_transaction)

    def _step(self, signed: list[bytes]) -> None:
        chain = self.street.chain
        for raw in signed:
            chain.call("eth_sendRawTransaction", hex_text(raw))
        blocks = self._dice.choice([1, 1, 1, 2, 4])
        head = chain.mine(LEAP if self._dice.random() < 0.1 and not self._is_led_away() else blocks)
        self._note(head)
        self._sent = [_Sent(raw, self._block_of(raw)) for raw in (*(sent.raw for sent in self._sent), *signed)]
        if self._dice.random() < 0.3:
            self._reorg(head, self._dice.randrange(1, DEEPEST + 1))

    def _is_led_away(self) -> bool:
        """True where a node tells of a fork now or soon: if the other is away, nobody can know, for so many blocks."""
        at = time.monotonic() - self._began
        windows = (window for script in self._scripts for window in script if window.fault is Fork)
        return any(window.begins < at + 2 and at < window.ends for window in windows)

    def _reorg(self, head: int, depth: int) -> None:
        """Replace the newest blocks; most of what they held comes back, in the same block or in another."""
        depth = min(depth, head - self._first)
        if depth < 1:
            return
        first = head - depth + 1
        again = []
        for sent in (each for each in self._sent if each.block is not None and each.block >= first):
            assert sent.block is not None
            if self._dice.random() < 0.85:
                place = sent.block - first if self._dice.random() < 0.5 else self._dice.randrange(depth)
                again.append((sent.raw, place))
        self.told.append(f"reorg of {depth} blocks from {first}, {len(again)} transactions come back")
        self._shop.reorg(depth, *again)
        self._note(self.street.chain.block_number())

    def _block_of(self, raw: bytes) -> int | None:
        receipt = self.street.chain.receipt(keccak(raw))
        return None if receipt is None else int(receipt["blockNumber"], 16)

    def _note(self, head: int) -> None:
        """Remember the most that a canonical chain has ever borne out of each payment."""
        for address, amount in self._sums(confirmations=CONFIRMATIONS).items():
            self._confirmable[address] = max(amount, self._confirmable.get(address, 0))

    def _sums(self, *, confirmations: int) -> dict[bytes, int]:
        tokens = {payment.address: asked_of(payment).token for payment in self.asked}
        sums = dict.fromkeys(tokens, 0)
        for paid in self._canonical.paid(tokens, confirmations=confirmations):
            if paid.token == tokens[paid.recipient]:
                sums[paid.recipient] += paid.amount
        return sums

    def _heal(self) -> None:
        began, head = time.monotonic(), self.street.chain.mine(CONFIRMATIONS)
        self._note(head)
        with suppress(AssertionError):  # what is wrong is told below, as it is then
            wait_until(lambda: self._is_read(head) and not self.wrong(), within_s=HEALED_WITHIN_S, every_s=0.25)
        wrong = self.wrong()
        assert not wrong, "\n".join(wrong)
        assert self._is_read(head), f"block {head} is not read"
        self.healed_after_s = time.monotonic() - began

    # --- judging ----------------------------------------------------------------------------------------------------

    def wrong(self) -> list[str]:
        """What is not as the canonical chain says, a sentence each."""
        found: list[str] = []
        by_address: dict[bytes, set[Paid]] = {payment.address: set() for payment in self.asked}
        for paid in self._canonical.paid(by_address):
            by_address[paid.recipient].add(paid)
        for asked in self.asked:
            found += self._wrong_of(asked, by_address[asked.address])
        return found

    def _wrong_of(self, asked: Payment, on_chain: set[Paid]) -> list[str]:
        transfers = self._shop.transfers(asked)
        stored = {
            Paid(t.recipient, t.token, t.amount, t.tx_hash or b"", t.log_index, t.block_number, t.block_hash)
            for t in transfers
        }
        standing, due = self._shop.payment(asked).standing, sum(paid.amount for paid in on_chain)
        found = []
        if stored != on_chain or len(transfers) != len(on_chain):
            differing = ", ".join(map(str, stored ^ on_chain)) or "one is stored twice"
            found.append(f"{asked.id} has {len(transfers)} transfers, and the chain {len(on_chain)}: {differing}")
        if standing.received != due:
            found.append(f"{asked.id} has received {standing.received} of {due}")
        if (standing.status is Status.CONFIRMED) != (due >= asked_of(asked).amount):
            found.append(f"{asked.id} is {standing.status} with {due} of {asked_of(asked).amount}")
        return found

    def false_credits(self) -> list[str]:
        """Every payment that was ever told to be confirmed with more than a canonical chain ever bore out."""
        found = []
        for asked in self.asked:
            borne_out = self._confirmable.get(asked.address, 0)
            with self.town.ctx.sessions.begin() as session:
                told = events.of_payment(session, asked.id, limit=500)
            for event in told:
                if event.type is EventType.PAYMENT_CONFIRMED and asked_of(asked).amount > borne_out:
                    found.append(f"{asked.id} was confirmed in version {event.version} with {borne_out} borne out")
        return found

    def _is_read(self, head: int) -> bool:
        with self.town.ctx.sessions.begin() as session:
            cursor = cursors.find(session, self.street.chain_id)
        assert cursor is None or cursor.stopped_reason is None, cursor
        return cursor is not None and cursor.read_block >= head

    def script(self) -> str:
        """What happened, for whoever reads of a failure."""
        lines = [f"seed {self.seed} on chain {self.street.chain_id}, healed after {self.healed_after_s:.1f} s"]
        for name, node, script in zip("AB", self.street.nodes, self._scripts, strict=True):
            lines += [f"  node {name}: {', '.join(map(str, script))}"]
            lines += ["    " + "; ".join(node.told)]
        return "\n".join([*lines, f"  kills at {self.kills_at}", *(f"  {told}" for told in self.told)])


def _split(amount: int, parts: int) -> list[int]:
    share = amount // parts
    return [*[share] * (parts - 1), amount - share * (parts - 1)]


def _pause_until(moment: float) -> None:
    threading.Event().wait(max(0.0, moment - time.monotonic()))
