import pytest

from ctrip.domain.addresses import NATIVE
from ctrip.domain.chains import Token
from ctrip.domain.finality import Finality, FinalityRule, Tier
from tests.factories import OTHER_TOKEN, TOKEN, make_chain


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (None, NATIVE),
        ("ETH", NATIVE),
        ("USDC", TOKEN),
        ("usdc", TOKEN),
        ("0x" + "70" * 20, TOKEN),
        ("0x" + "71" * 20, OTHER_TOKEN),
        ("WBTC", None),
        ("0x" + "00" * 20, None),  # the coin has no address to be asked for by
        ("0x" + "72" * 20, None),
        ("", None),
    ],
)
def test_an_asset_is_found_by_symbol_or_contract(name: str | None, address: bytes | None) -> None:
    found = make_chain().token(name)
    assert (found and found.address) == address


@pytest.mark.parametrize(
    ("token", "is_payable"),
    [
        (Token("A", TOKEN, 6), True),
        (Token("A", TOKEN, 6, enabled=False), False),
        (Token("A", TOKEN, 6, fee_on_transfer=True), False),
        (Token("A", TOKEN, 6, rebasing=True), False),
    ],
)
def test_only_what_arrives_as_it_was_sent_can_be_asked_for(token: Token, is_payable: bool) -> None:
    assert token.is_payable is is_payable


USUAL = FinalityRule(Finality.SAFE, 3)
LARGE = FinalityRule(Finality.SAFE, 30)
HUGE = FinalityRule(Finality.FINALIZED, 40)


@pytest.mark.parametrize(
    ("amount", "rule"),
    [(1, USUAL), (1000, USUAL), (1001, LARGE), (5000, LARGE), (5001, HUGE), (10**30, HUGE)],
)
def test_an_amount_is_final_by_the_highest_tier_that_it_exceeds(amount: int, rule: FinalityRule) -> None:
    token = Token("USDC", TOKEN, 6, tiers=(Tier(1000, LARGE), Tier(5000, HUGE)))
    assert make_chain(finality=Finality.SAFE).rule_for(token, amount) == rule


def test_a_chain_asks_for_the_words_that_some_rule_of_it_names() -> None:
    tiered = Token("USDC", TOKEN, 6, tiers=(Tier(1000, HUGE),))
    chain = make_chain(finality=Finality.SAFE, tokens=(*make_chain().tokens[:1], tiered))
    assert [chain.asks_for(finality) for finality in Finality] == [False, True, True]
    assert [make_chain().asks_for(finality) for finality in Finality] == [True, False, False]


@pytest.mark.parametrize(
    ("rule", "other", "covers"),
    [
        (USUAL, USUAL, True),
        (HUGE, LARGE, True),
        (LARGE, HUGE, False),
        (FinalityRule(Finality.FINALIZED, 2), USUAL, False),  # sooner deep enough
        (FinalityRule(Finality.CONFIRMATIONS, 100), USUAL, False),  # the chain's word is missing
    ],
)
def test_a_rule_covers_what_asks_for_no_more_in_both_ways(
    rule: FinalityRule, other: FinalityRule, covers: bool
) -> None:
    assert rule.covers(other) is covers


@pytest.mark.parametrize(("since", "told"), [(None, [False] * 3), (100, [False, True, True]), (0, [True] * 3)])
def test_coin_has_logs_from_a_block_on(since: int | None, told: list[bool]) -> None:
    chain = make_chain(native_logs_from=since)
    assert [chain.logs_coin(block) for block in (99, 100, 101)] == told


@pytest.mark.parametrize("other", [USUAL, LARGE, HUGE, FinalityRule(Finality.CONFIRMATIONS, 100)])
def test_a_rule_that_joins_two_covers_both_and_asks_for_no_more(other: FinalityRule) -> None:
    joined = LARGE.joined(other)
    assert joined == other.joined(LARGE)
    assert joined.covers(LARGE) and joined.covers(other)
    assert joined.finality in (LARGE.finality, other.finality)
    assert joined.confirmations in (LARGE.confirmations, other.confirmations)
