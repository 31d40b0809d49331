import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrip.domain.ids import RANDOM_BYTES, Prefix, make_id

TIMES = st.integers(0, 2**48 - 1)
RANDOM = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def test_an_id_is_the_ulid_of_its_time_and_randomness() -> None:
    # The example of the specification has this time: 01ARZ3NDEK is 2016-07-30T23:54:10.259Z.
    made = make_id(Prefix.PAYMENT, now_ms=1469922850259, random=bytes.fromhex("d6764c61efb99302bd5b"))
    assert made == "pay_01ARZ3NDEKTSV4RRFFQ69G5FAV"


def test_every_kind_of_object_has_a_prefix_of_the_contract() -> None:
    assert set(Prefix) <= {"pay", "trf", "evt", "whe", "whd", "swp", "mer", "key", "job", "dlt", "req", "eml", "aud"}


@given(TIMES, RANDOM)
def test_an_id_carries_all_of_its_80_random_bits(now_ms: int, random: bytes) -> None:
    made = make_id(Prefix.EVENT, now_ms=now_ms, random=random)
    assert re.fullmatch(rf"evt_[{CROCKFORD}]{{26}}", made)
    number = 0
    for char in made.removeprefix("evt_"):
        number = number * 32 + CROCKFORD.index(char)
    assert number % 2**80 == int.from_bytes(random)
    assert number >> 80 == now_ms


@given(TIMES, TIMES, RANDOM, RANDOM)
def test_ids_sort_by_time(first: int, second: int, one: bytes, other: bytes) -> None:
    earlier = make_id(Prefix.PAYMENT, now_ms=min(first, second), random=one)
    later = make_id(Prefix.PAYMENT, now_ms=max(first, second), random=other)
    assert earlier < later or first == second


@pytest.mark.parametrize("length", [0, 8, 9, 11, 16])
def test_an_id_is_not_made_of_less_or_more_randomness(length: int) -> None:
    with pytest.raises(ValueError, match="10 random bytes"):
        make_id(Prefix.PAYMENT, now_ms=0, random=bytes(length))
