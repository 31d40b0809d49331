from dataclasses import replace
from datetime import timedelta

import pytest

from ctrip.domain.forks import LEAST_PATIENCE, MOST_PATIENCE, Verdict, Voice, patience, voice_of, voice_on, weigh
from ctrip.domain.scanning import Header
from tests.factories import NOON, block_time, header

KEPT, GONE, SILENT = Voice.KEPT, Voice.GONE, Voice.SILENT


@pytest.mark.parametrize(
    ("told", "voice"), [(None, SILENT), (header(7), KEPT), (header(7, "fork"), GONE)], ids=["no block", "ours", "other"]
)
def test_an_endpoint_speaks_by_the_block_that_it_has_there(told: Header | None, voice: Voice) -> None:
    assert voice_of(told, lost=header(7)) is voice


@pytest.mark.parametrize(
    ("others", "in_window", "too_deep"),
    [
        ([], Verdict.FOLLOWED, Verdict.FOLLOWED),  # nobody else answers
        ([SILENT], Verdict.FOLLOWED, Verdict.OPEN),
        ([SILENT, SILENT], Verdict.FOLLOWED, Verdict.OPEN),
        ([GONE], Verdict.FOLLOWED, Verdict.FOLLOWED),
        ([GONE, SILENT], Verdict.FOLLOWED, Verdict.FOLLOWED),
        ([KEPT], Verdict.OPEN, Verdict.OPEN),
        ([KEPT, SILENT], Verdict.OPEN, Verdict.OPEN),
        ([KEPT, GONE], Verdict.FOLLOWED, Verdict.FOLLOWED),
        ([KEPT, KEPT], Verdict.DENIED, Verdict.DENIED),
        ([KEPT, KEPT, GONE], Verdict.OPEN, Verdict.OPEN),
        ([KEPT, KEPT, SILENT], Verdict.DENIED, Verdict.DENIED),
        ([KEPT, GONE, GONE], Verdict.FOLLOWED, Verdict.FOLLOWED),
    ],
)
def test_a_reorg_is_followed_where_more_say_so_than_deny_it(
    others: list[Voice], in_window: Verdict, too_deep: Verdict
) -> None:
    assert weigh([GONE, *others], is_too_deep=False) is in_window
    assert weigh([GONE, *others], is_too_deep=True) is too_deep


def _late(number: int) -> Header:
    return replace(header(number), time=block_time(number + 60))


@pytest.mark.parametrize(
    ("there", "head", "voice", "by_hash"),
    [
        (header(7), header(9), KEPT, KEPT),
        (header(7), header(6), KEPT, KEPT),  # several nodes behind one address
        (header(7, "fork"), header(9, "fork"), GONE, GONE),
        (_late(7), header(9), GONE, KEPT),
        (None, header(6), SILENT, SILENT),  # it is behind, or stuck
        (None, _late(6), GONE, GONE),  # it is younger than the block that it lacks
        (None, _late(7), SILENT, SILENT),  # it keeps no blocks so old
    ],
    ids=["the same", "the same, from another", "another", "another time", "behind", "not behind", "pruned"],
)
def test_who_lacks_a_block_and_is_not_behind_denies_it(
    there: Header | None, head: Header, voice: Voice, by_hash: Voice
) -> None:
    assert voice_on(header(7), there=there, head=head) is voice
    assert voice_on(header(7), there=there, head=head, is_hash_enough=True) is by_hash


def _blocks(*seconds: int) -> list[Header]:
    return [replace(header(number), time=NOON + timedelta(seconds=at)) for number, at in enumerate(seconds)]


@pytest.mark.parametrize(
    ("stored", "waits"),
    [
        (_blocks(0), LEAST_PATIENCE),
        (_blocks(0, 12, 24, 36, 48, 60, 72, 84, 96), timedelta(seconds=12 * 16)),
        (_blocks(0, 12, 24, 36, 37, 38, 39, 40, 41), timedelta(seconds=12 * 16)),  # the last ones were made up
        (_blocks(0, 0, 0, 1, 1, 1, 1, 2, 2), LEAST_PATIENCE),
    ],
    ids=["one block", "12 seconds", "and then faster", "a fast chain"],
)
def test_a_block_is_young_for_a_quarter_of_the_window_at_the_pace_of_the_oldest_blocks(
    stored: list[Header], waits: timedelta
) -> None:
    assert patience(stored, reorg_window=64) == waits


@pytest.mark.parametrize("shift", [timedelta(hours=2), timedelta(days=3650), -timedelta(hours=2)])
@pytest.mark.parametrize("false", [0, 4, 8, 15, 16, 64])
def test_one_false_time_among_the_stored_ones_changes_nothing_of_how_long_a_block_is_young(
    false: int, shift: timedelta
) -> None:
    stored = _blocks(*range(0, 65 * 12, 12))
    stored[false] = replace(stored[false], time=stored[false].time + shift)
    assert patience(stored, reorg_window=64) == timedelta(seconds=12 * 16)


def test_no_block_is_young_for_longer_than_an_endpoint_is_remembered() -> None:
    assert patience(_blocks(*range(0, 4097 * 12, 12)), reorg_window=4096) == MOST_PATIENCE


def test_of_several_blocks_a_second_the_pace_is_known() -> None:
    assert patience(_blocks(*(number // 4 for number in range(4097))), reorg_window=4096) == timedelta(seconds=256)
