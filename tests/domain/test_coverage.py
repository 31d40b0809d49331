from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ctrip.domain.coverage import gaps, union
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
