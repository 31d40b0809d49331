import pytest

from ctrip.blockchain.growth import EVERY_S, FORGOTTEN_S, Growth
from ctrip.domain.forks import MOST_PATIENCE

Tell = tuple[float, int]
"""A moment, and the head that was told then."""


def grown(*told: Tell) -> Growth:
    growth = Growth()
    for at, number in told:
        growth.note(number, at=at)
    return growth


@pytest.mark.parametrize(
    ("told", "number", "told_for_s"),
    [
        ([], 1, 0.0),
        ([(100, 7)], 7, 900.0),
        ([(100, 7)], 3, 900.0),  # older ones it knew at least since then
        ([(100, 7)], 8, 0.0),
        ([(100, 7), (200, 8), (300, 9)], 8, 800.0),
        ([(100, 7), (200, 7), (300, 7)], 7, 900.0),
        ([(100, 7), (999, 47)], 31, 1.0),  # forty blocks at once are as young as the moment when it told of them
        ([(100, 7), (103, 8), (104, 8), (106, 9)], 8, 894.0),  # told apart only every EVERY_S
        ([(100, 9), (200, 8), (300, 9)], 9, 700.0),  # it took that back
        ([(100, 9), (200, 8), (300, 9)], 8, 900.0),
        ([(100, 5), (110, 6), (120, 7), (130, 3), (140, 7)], 3, 900.0),
        ([(100, 5), (110, 6), (120, 7), (130, 3), (140, 7)], 4, 860.0),
    ],
)
def test_since_when_an_endpoint_tells_of_a_block(told: list[Tell], number: int, told_for_s: float) -> None:
    assert grown(*told).told_for_s(number, now=1000.0) == told_for_s


def test_what_is_remembered_is_bounded_and_forgets_the_oldest() -> None:
    growth = grown(*((EVERY_S * at, at) for at in range(10_000)))
    assert growth.told_for_s(9_999, now=EVERY_S * 10_000) == EVERY_S
    assert growth.told_for_s(9_900, now=EVERY_S * 10_000) == EVERY_S * 100
    assert growth.told_for_s(1, now=EVERY_S * 10_000) == growth.told_for_s(9_000, now=EVERY_S * 10_000)


def test_what_is_remembered_suffices_to_believe_any_block_in_the_end() -> None:
    growth, number = grown(), 1000
    for at in range(2000):
        growth.note(at, at=EVERY_S * at)
        if at > number and growth.told_for_s(number, now=EVERY_S * at) >= MOST_PATIENCE.total_seconds():
            return
    pytest.fail("it is never known for how long the block has been told of")


@pytest.mark.parametrize(
    ("told", "grown_at"),
    [
        ([(100, 7), (110, 8), (120, 8)], 110),
        ([(100, 7), (110, 6), (120, 7), (130, 6), (140, 7)], 100),  # it goes back and forth, and does not grow
        ([(100, 7), (110, 6), (120, 8)], 120),
        ([(100, 999), (110, 7), (100 + FORGOTTEN_S, 8)], 100),
        ([(100, 999), (110, 7), (101 + FORGOTTEN_S, 8)], 101 + FORGOTTEN_S),  # there was no such head
    ],
)
def test_when_an_endpoint_last_told_of_a_head_so_new_for_the_first_time(told: list[Tell], grown_at: float) -> None:
    assert grown(*told).grown_at == grown_at
