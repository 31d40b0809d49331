"""Payments that ask for a price: where they stand before and after an asset is chosen."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from ctrip.domain.addresses import NATIVE
from ctrip.domain.finality import Finality
from ctrip.domain.payment_words import asked_in_words
from ctrip.domain.payments import Facts, Payment, Status, Timing, assess, final_amount, payment_object
from ctrip.domain.prices import SLOT, Choice, Price, counts_after, quote_of
from ctrip.domain.rates import Rate, Told
from ctrip.domain.transfers import Reason, Transfer, TransferStatus
from tests.factories import (
    DEADLINE_BLOCK,
    OTHER_CHAIN_ID,
    OTHER_TOKEN,
    TOKEN,
    block_time,
    make_chain,
    make_payment,
    make_price,
    make_transfer,
)

CHOSEN_AT = block_time(50)
QUOTE = {"rate": "3000", "as_of": "2026-11-22T12:00:40Z", "sources": []}
FINAL = TransferStatus.FINAL


def unchosen(**changes: Any) -> Payment:
    return make_payment(asked=None, price=make_price(), **changes)


def chosen(*, after: int = 50, **changes: Any) -> Payment:
    """A payment of 1,000 of TOKEN, chosen at CHOSEN_AT; what came up to block `after` was there before."""
    return make_payment(price=make_price(), choice=Choice(CHOSEN_AT, block_time(after), QUOTE), **changes)


def stands(payment: Payment, *transfers: Transfer, passed: int = 0) -> tuple[Status, Timing | None, int]:
    assessment = assess(payment, transfers, Facts(block_time(passed)))
    standing = assessment.standing
    return standing.status, standing.timing, standing.received


def reasons(payment: Payment, *transfers: Transfer) -> list[Reason | None]:
    return [verdict.reason for verdict in assess(payment, transfers, Facts(None)).verdicts]


# --- before the choice ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "came",
    [
        make_transfer(1000, 10),
        make_transfer(10**30, 10, status=FINAL),
        make_transfer(1000, 10, token=NATIVE, status=FINAL),
        make_transfer(1000, 10, token=OTHER_TOKEN),
        make_transfer(1000, 10, chain_id=OTHER_CHAIN_ID),
        make_transfer(1000, 10, is_payable=False),
    ],
)
def test_what_comes_before_the_choice_counts_for_nothing(came: Transfer) -> None:
    assert stands(unchosen(), came) == (Status.PENDING, None, 0)
    assert reasons(unchosen(), came) == [Reason.BEFORE_CHOICE]
    assert final_amount(unchosen(), (came,)) == 0


def test_our_own_transactions_are_ours_before_the_choice_too() -> None:
    assert reasons(unchosen(), make_transfer(1, 1, is_own=True)) == [Reason.OWN_TRANSACTION]


@pytest.mark.parametrize(
    ("passed", "status"),
    [
        (None, Status.PENDING),
        (0, Status.PENDING),
        (DEADLINE_BLOCK, Status.PENDING),
        (DEADLINE_BLOCK + 1, Status.EXPIRED),
    ],
)
def test_without_a_choice_it_ends_when_all_chains_are_past_its_deadline(passed: int | None, status: Status) -> None:
    facts = Facts(None if passed is None else block_time(passed))
    assert assess(unchosen(), (), facts).standing.status is status


def test_a_canceled_one_stays_so() -> None:
    canceled = unchosen(canceled_at=block_time(1))
    assert stands(canceled, make_transfer(1000, 10), passed=DEADLINE_BLOCK + 1) == (Status.CANCELED, None, 0)


def test_it_is_shown_without_an_asset() -> None:
    shown = payment_object(unchosen(), read_block=100)
    empty = ("chain", "chain_id", "token", "token_address", "decimals", "amount", "amount_atomic", "payment_uri")
    assert [shown[name] for name in empty] == [None] * len(empty)
    assert (shown["received"], shown["received_atomic"], shown["confirmations"]) == ("0", "0", 0)
    assert (shown["confirmations_required"], shown["quote"]) == (None, None)
    assert shown["price"] == {"amount": "49.90", "currency": "EUR"}
    assert shown["assets"] == [
        {"chain": "anvil", "chain_id": 31337, "token": None, "token_address": None, "decimals": 18},
        {"chain": "anvil", "chain_id": 31337, "token": "USDC", "token_address": "0x" + "70" * 20, "decimals": 6},
    ]
    assert shown["address"] == payment_object(make_payment(), read_block=0)["address"]


@pytest.mark.parametrize(
    ("payment", "words"), [(unchosen(), "49.90 EUR"), (chosen(), "0.001 USDC"), (make_payment(), "0.001 USDC")]
)
def test_what_it_asks_for_in_words(payment: Payment, words: str) -> None:
    assert asked_in_words(payment) == words


def test_an_asset_is_read_as_it_was_stored() -> None:
    price = make_price(make_chain(finality=Finality.SAFE, confirmations=7))
    native, token = price.accepted
    assert (native.token, native.required, native.finality) == (NATIVE, 7, Finality.SAFE)
    assert (token.token, token.symbol, token.decimals) == (TOKEN, "USDC", 6)
    assert Price(price.price, price.currency, [native.stored(), token.stored()]) == price


# --- after it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("came", "reason"),
    [
        (make_transfer(1000, 49), Reason.BEFORE_CHOICE),
        (make_transfer(1000, 50), Reason.BEFORE_CHOICE),
        (make_transfer(1000, 51), None),
        (make_transfer(1000, 50, token=NATIVE), Reason.BEFORE_CHOICE),
        (make_transfer(1000, 51, token=NATIVE), Reason.ASSET),
        (make_transfer(1000, 50, chain_id=OTHER_CHAIN_ID), Reason.BEFORE_CHOICE),
        (make_transfer(1000, 51, chain_id=OTHER_CHAIN_ID), Reason.CHAIN),
        # It was read while nobody knew which asset it would be, so it would be final by another rule than was asked.
        (make_transfer(1000, 51, required=2), Reason.BEFORE_CHOICE),
        (make_transfer(1000, 51, finality=Finality.SAFE), Reason.BEFORE_CHOICE),
    ],
)
def test_money_counts_from_the_choice_on(came: Transfer, reason: Reason | None) -> None:
    assert reasons(chosen(), came) == [reason]


def test_what_came_before_the_choice_does_not_help_to_complete() -> None:
    early, later = make_transfer(600, 40, status=FINAL), make_transfer(600, 60, status=FINAL)
    assert stands(chosen(), early, later) == (Status.PENDING, None, 600)
    rest = make_transfer(400, 61, status=FINAL)
    assert stands(chosen(), early, later, rest) == (Status.CONFIRMED, Timing.ON_TIME, 1000)


def test_a_payment_of_an_amount_knows_no_such_time() -> None:
    assert reasons(make_payment(), make_transfer(1000, 1, required=2)) == [None]


def test_when_the_quote_is_over_money_is_late() -> None:
    payment = chosen(expires_at=block_time(70))
    assert stands(payment, make_transfer(1000, 71, status=FINAL), passed=71) == (Status.EXPIRED, Timing.LATE, 1000)
    assert stands(payment, make_transfer(1000, 70, status=FINAL), passed=71)[0] is Status.CONFIRMED


@pytest.mark.parametrize(
    ("stored", "after"),
    [
        (None, CHOSEN_AT - SLOT),
        (block_time(1), CHOSEN_AT - SLOT),
        (block_time(49), block_time(49)),
        # A chain's clock may be ahead: what is stored came before all the same.
        (block_time(900), block_time(900)),
    ],
)
def test_after_which_block_money_counts(stored: Any, after: Any) -> None:
    assert counts_after(CHOSEN_AT, stored=stored) == after


def test_the_locked_rate_is_shown_with_who_told_it_and_its_age() -> None:
    told = (Told("kraken", Decimal("3000.10"), CHOSEN_AT - timedelta(seconds=9)), Told("x", Decimal(3001), CHOSEN_AT))
    quote = quote_of(Rate(Decimal("3000.55"), told, told[0].as_of))
    shown = payment_object(replace(chosen(), choice=Choice(CHOSEN_AT, CHOSEN_AT, quote)), read_block=0)
    assert shown["quote"] == {
        "rate": "3000.55",
        "as_of": "2026-11-22T12:00:41Z",
        "sources": [
            {"source": "kraken", "rate": "3000.1", "as_of": "2026-11-22T12:00:41Z"},
            {"source": "x", "rate": "3001", "as_of": "2026-11-22T12:00:50Z"},
        ],
        "age_seconds": 9,
        "locked_at": "2026-11-22T12:00:50Z",
    }
