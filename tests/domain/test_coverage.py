from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ctrip.domain.addresses import NATIVE
from ctrip.domain.coverage import AssetCoverage, ChainCoverage, gaps, in_words, union
from ctrip.domain.scanning import BlockRange


@st.composite
def ranges(draw: st.DrawFn, most: int = 40) -> BlockRange:
    first = draw(st.integers(0, most))
    return BlockRange(first, draw(st.integers(first, most)))


@given(st.lists(ranges(), max_size=8), ranges())
def test_the_gaps_are_the_blocks_that_no_range_covers(covered: list[BlockRange], within: BlockRange) -> None:
    found = gaps(covered, within)
    assert [number for gap in found for number in gap] == sorted(set(within) - {n for each in covered for n in each})
    assert all(before.last + 1 < after.first for before, after in pairwise(found)), "none adjoin"


@given(st.lists(ranges(), max_size=8))
def test_the_union_has_the_same_blocks_in_ranges_that_do_not_adjoin(covered: list[BlockRange]) -> None:
    found = union(covered)
    assert [number for each in found for number in each] == sorted({n for each in covered for n in each})
    assert all(before.last + 1 < after.first for before, after in pairwise(found))


def test_of_blocks_before_the_start_nobody_says_that_they_are_read_by_themselves() -> None:
    lacking = AssetCoverage("ETH", NATIVE, covered=(), unread=(BlockRange(16, 28), BlockRange(40, 40)))
    before, behind = in_words(
        ChainCoverage("anvil", first_block=16, is_first_known=True, start_block=28, read_block=50, assets=(lacking,))
    )
    assert before == (
        "ETH lacks blocks 16 to 28; the chain began after that, so this alone reads them: "
        "ctrip rescan anvil --from 16 --to 28"
    )
    assert behind.startswith("ETH lacks block 40; a backfill reads them")
