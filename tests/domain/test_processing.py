from dataclasses import replace

import pytest

from ctrip.domain.processing import COIN_BLOCKS, LOGS_SPAN, WHOLE_SPAN, Course, course, difference
from ctrip.domain.transfers import Sighting, Transfer
from tests.factories import block_hash, block_time, make_transfer, tx_hash


def spans(of: Course) -> list[tuple[int, int, bool]]:
    found = []
    while not of.is_over:
        span = of.span()
        found.append((span.first, span.last, of.reads_whole))
        of = of.after(span, blocks_read=0, stored=0, orphaned=0)
    return found


@pytest.mark.parametrize("is_coin", [True, False])
@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 63), (1, 64), (1, 65), (1, 500), (7, 9_000), (50, 1_000_000)])
def test_every_block_is_looked_at_once_and_those_of_the_reorg_window_whole(
    first: int, last: int, is_coin: bool
) -> None:
    found = spans(course(first_block=first, last_block=last, reorg_window=64, is_coin=is_coin))
    assert [span[0] for span in found] == [first, *(span[1] + 1 for span in found[:-1])]
    assert found[-1][1] == last
    whole = {block for a, b, is_whole in found if is_whole for block in range(a, b + 1)}
    wanted = set(range(max(first, last - 63), last + 1))
    wanted |= set(range(first, min(last, first + COIN_BLOCKS - 1) + 1)) if is_coin else set()
    assert whole == wanted
    assert all(b - a < (WHOLE_SPAN if is_whole else LOGS_SPAN) for a, b, is_whole in found)


def sighting(of: Transfer) -> Sighting:
    assert of.tx_hash is not None
    assert of.sender is not None
    return Sighting(
        block_number=of.block_number,
        block_hash=of.block_hash,
        block_time=block_time(of.block_number),
        tx_hash=of.tx_hash,
        log_index=of.log_index,
        token=of.token,
        sender=of.sender,
        recipient=of.recipient,
        amount=of.amount,
    )


def test_rows_and_blocks_are_compared_where_the_blocks_were_read() -> None:
    both, only_stored, elsewhere = make_transfer(1, 10), make_transfer(2, 11), make_transfer(3, 99)
    only_seen = sighting(make_transfer(4, 12))
    found = difference([both, only_stored, elsewhere], [sighting(both), only_seen], blocks={10, 11, 12})
    assert (found.missing, found.strangers) == ((only_seen,), (only_stored,))
    assert not difference([both], [sighting(both)], blocks={10})


def test_a_transfer_of_another_block_at_the_same_height_is_a_stranger() -> None:
    there = make_transfer(1, 10)
    here = replace(there, block_hash=block_hash(10, "fork"))
    found = difference([here], [sighting(there)], blocks={10})
    assert ([each.block_hash for each in found.strangers], [each.tx_hash for each in found.missing]) == (
        [block_hash(10, "fork")],
        [tx_hash("1 in 10")],
    )
