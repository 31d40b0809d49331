"""The sweeper's decisions, as tables: what to sign, what to do with what was signed, what a node's words mean."""

from dataclasses import replace

import pytest

from ctrip.domain.gas import Price
from ctrip.domain.sweeps import (
    Answer,
    HeldReason,
    Hold,
    Move,
    Plan,
    Sight,
    Sign,
    TopUp,
    classify,
    next_move,
    plan_coin_sweep,
    plan_token_sweep,
    plan_topup,
)

PRICE = Price(10, 10)
GAS = 21_000


@pytest.mark.parametrize(
    ("owed", "balance", "price", "filler", "plan"),
    [
        (10**6, 10**6, PRICE, False, Sign(10**6 - 210_000, GAS, PRICE)),  # value and gas are all of it
        (10**6, 2 * 10**6, PRICE, False, Sign(10**6 - 210_000, GAS, PRICE)),  # what was not read is left alone
        (2 * 10**6, 10**6, PRICE, False, Sign(10**6 - 210_000, GAS, PRICE)),  # never more than the final balance
        (210_001, 210_001, PRICE, False, Sign(1, GAS, PRICE)),
        (210_000, 210_000, PRICE, False, Hold(HeldReason.DUST)),  # it would move nothing
        (5, 5, PRICE, False, Hold(HeldReason.DUST)),
        (10**6, 0, PRICE, False, Hold(HeldReason.UNCOVERED)),
        (10**6, 10**6, None, False, Hold(HeldReason.FEE_CEILING)),
        (0, 10**6, PRICE, True, TopUp(210_000)),  # a nonce is to be spent, and nothing of the coin is known to be ours
        (210_000, 210_000, PRICE, True, Sign(0, GAS, PRICE)),
        (300_000, 300_000, PRICE, True, Sign(90_000, GAS, PRICE)),
        (10_000, 300_000, PRICE, True, TopUp(200_000)),
    ],
)
def test_a_sweep_of_coin_moves_all_that_was_read_and_leaves_nothing(
    owed: int, balance: int, price: Price | None, *, filler: bool, plan: Plan
) -> None:
    assert plan_coin_sweep(owed=owed, balance=balance, gas_limit=GAS, price=price, is_filler=filler) == plan


LASTING, LEAST = Price(20, 2), Price(13, 13)


@pytest.mark.parametrize(
    ("amount", "coin", "price", "filler", "plan"),
    [
        (5, 2_000_000, LASTING, False, Sign(5, 100_000, LASTING)),
        (5, 9_000_000, LASTING, False, Sign(5, 100_000, LASTING)),
        (5, 0, LASTING, False, TopUp(2_000_000)),
        (5, 1_200_000, LASTING, False, TopUp(800_000)),  # the difference alone
        (5, 1_300_000, LASTING, False, Sign(5, 100_000, Price(13, 2))),  # the fees rose; it still does
        (5, 1_999_999, LASTING, False, Sign(5, 100_000, Price(19, 2))),
        (0, 2_000_000, LASTING, False, Hold(HeldReason.UNCOVERED)),
        (0, 2_000_000, LASTING, True, Sign(0, 100_000, LASTING)),  # a nonce is to be spent
        (5, 2_000_000, None, False, Hold(HeldReason.FEE_CEILING)),
    ],
)
def test_a_sweep_of_tokens_waits_for_the_gas_that_it_needs(
    amount: int, coin: int, price: Price | None, *, filler: bool, plan: Plan
) -> None:
    decided = plan_token_sweep(
        amount=amount,
        coin=coin,
        gas_limit=100_000,
        price=price,
        least_price=None if price is None else LEAST,
        is_filler=filler,
    )
    assert decided == plan


@pytest.mark.parametrize(
    ("free_coin", "price", "plan"),
    [
        (1_210_000, PRICE, Sign(10**6, GAS, PRICE)),
        (1_209_999, PRICE, Hold(HeldReason.GAS_WALLET_EMPTY)),
        (-5, PRICE, Hold(HeldReason.GAS_WALLET_EMPTY)),
        (10**9, None, Hold(HeldReason.FEE_CEILING)),
    ],
)
def test_a_top_up_is_signed_only_where_the_gas_wallet_can_pay_it(
    free_coin: int, price: Price | None, plan: Sign | Hold
) -> None:
    assert plan_topup(amount=10**6, free_coin=free_coin, gas_limit=GAS, price=price) == plan


FLYING = Sight(
    is_covered=True,
    is_waiting=True,
    is_stale=False,
    is_overdue=False,
    can_raise=True,
    lacks_gas=False,
    is_taken=True,
)


@pytest.mark.parametrize(
    ("situation", "sight", "move"),
    [
        ("just sent", FLYING, Move.WAIT),
        ("signed, and not sent yet", replace(FLYING, is_waiting=False), Move.BROADCAST),
        ("sent some blocks ago, perhaps lost", replace(FLYING, is_stale=True), Move.BROADCAST),
        ("waits for too long", replace(FLYING, is_overdue=True), Move.RAISE),
        ("waits for too long and may be lost", replace(FLYING, is_overdue=True, is_stale=True), Move.RAISE),
        ("too long, at the ceiling, price still fine", replace(FLYING, is_overdue=True, can_raise=False), Move.WAIT),
        (
            "too long, at the ceiling, price still fine, perhaps lost",
            replace(FLYING, is_overdue=True, can_raise=False, is_stale=True),
            Move.BROADCAST,
        ),
        (
            "too long, at the ceiling, market above it",
            replace(FLYING, is_overdue=True, can_raise=False, is_taken=False),
            Move.HOLD_FEE_CEILING,
        ),
        ("market above it, but not for long", replace(FLYING, is_taken=False), Move.WAIT),
        (
            "too long, and no coin for a higher price",
            replace(FLYING, is_overdue=True, can_raise=False, lacks_gas=True, is_taken=False),
            Move.TOP_UP,
        ),
        ("held at the ceiling, market below it again", replace(FLYING, is_waiting=False), Move.BROADCAST),
        ("a reorg took the money", replace(FLYING, is_covered=False), Move.HOLD_UNCOVERED),
        ("a reorg took the money, unsent", replace(FLYING, is_covered=False, is_waiting=False), Move.HOLD_UNCOVERED),
        ("no money, too long", replace(FLYING, is_covered=False, is_overdue=True), Move.HOLD_UNCOVERED),
    ],
)
def test_what_is_done_with_a_signed_sweep_that_no_block_has(situation: str, sight: Sight, move: Move) -> None:
    assert next_move(sight) is move


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("already known", Answer.KNOWN),
        ("ALREADY_KNOWN: already known", Answer.KNOWN),
        ("AlreadyKnown", Answer.KNOWN),
        ("Known transaction", Answer.KNOWN),
        ("transaction already imported", Answer.KNOWN),
        ("Transaction with the same hash was already imported.", Answer.KNOWN),
        ("INTERNAL_ERROR: existing tx with same hash", Answer.KNOWN),
        ("nonce too low", Answer.NONCE_USED),
        ("nonce too low: address 0xAb current nonce (6) > tx nonce (5)", Answer.NONCE_USED),
        ("nonce too low: next nonce 1, tx nonce 0", Answer.NONCE_USED),
        ("Nonce too low", Answer.NONCE_USED),
        ("OldNonce, Current nonce: 4, nonce of rejected tx: 3", Answer.NONCE_USED),
        ("replacement transaction underpriced", Answer.UNDERPRICED),
        ("transaction underpriced: tip needed 1, tip permitted 0", Answer.UNDERPRICED),
        ("max fee per gas less than block base fee: address 0xAb, maxFeePerGas: 6, baseFee: 7", Answer.UNDERPRICED),
        ("Gas price below current base fee", Answer.UNDERPRICED),
        ("FeeTooLowToCompete", Answer.UNDERPRICED),
        ("ReplacementNotAllowed", Answer.UNDERPRICED),
        ("insufficient funds for gas * price + value: address 0xAb have 1 want 2", Answer.UNFUNDED),
        ("Insufficient funds for gas * price + value", Answer.UNFUNDED),
        ("InsufficientFunds, Balance is 0", Answer.UNFUNDED),
        ("Upfront cost exceeds account balance", Answer.UNFUNDED),
        ("Nonce too high", Answer.LATER),
        ("NonceGap, Future nonce. Expected nonce: 4", Answer.LATER),
        ("txpool is full", Answer.LATER),
        ("in-flight transaction limit reached for delegated accounts", Answer.LATER),
        ("intrinsic gas too low", Answer.REFUSED),
        ("exceeds block gas limit", Answer.REFUSED),
        ("invalid sender", Answer.REFUSED),
        ("", Answer.REFUSED),
    ],
)
def test_what_a_nodes_words_mean(message: str, answer: Answer) -> None:
    assert classify(message) is answer
