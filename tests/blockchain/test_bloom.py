from ctrip.blockchain.bloom import mask, may_hold
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
