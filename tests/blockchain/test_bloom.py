from random import Random

import pytest

from ctrip.blockchain.bloom import chance_of_yes, is_told, mask, may_hold
from ctrip.blockchain.erc20 import TRANSFER_TOPIC
from tests.factories import OTHER_TOKEN, TOKEN


def test_a_filter_holds_what_was_put_into_it() -> None:
    wanted, other = mask(TOKEN, TRANSFER_TOPIC), mask(OTHER_TOKEN, TRANSFER_TOPIC)
    assert may_hold(wanted, [wanted])
    assert may_hold(wanted | other, [other])
    assert not may_hold(wanted, [other])


def test_the_token_alone_or_the_topic_alone_is_not_enough() -> None:
    wanted = mask(TOKEN, TRANSFER_TOPIC)
    assert not may_hold(mask(TOKEN), [wanted])
    assert not may_hold(mask(TRANSFER_TOPIC), [wanted])


def test_an_empty_filter_holds_nothing_and_nothing_wanted_is_never_held() -> None:
    assert not may_hold(0, [mask(TOKEN, TRANSFER_TOPIC)])
    assert not may_hold(mask(TOKEN), [])


def test_an_empty_filter_and_a_full_one_tell_nothing() -> None:
    assert not is_told(0)
    assert not is_told((1 << 2048) - 1)
    assert is_told(mask(TOKEN))


@pytest.mark.parametrize("entries", [50, 200, 400, 800])
def test_the_chance_of_a_wrong_yes_is_what_is_found_among_many_contracts(entries: int) -> None:
    dice, count = Random(entries), 3000
    bloom = mask(TRANSFER_TOPIC)
    for _ in range(entries):
        bloom |= mask(dice.randbytes(20))
    strangers = [mask(dice.randbytes(20), TRANSFER_TOPIC) for _ in range(count)]
    found = sum(may_hold(bloom, [stranger]) for stranger in strangers) / count
    assert abs(found - chance_of_yes(bloom, 1)) < 0.03
    assert chance_of_yes(bloom, 4) == pytest.approx(4 * chance_of_yes(bloom, 1))
