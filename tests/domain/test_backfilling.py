from hypothesis import given
from hypothesis import strategies as st

from ctrip.domain.addresses import NATIVE
from ctrip.domain.backfilling import Backfill, next_backfill
from ctrip.domain.coverage import gaps
from ctrip.domain.scanning import BlockRange
from tests.factories import OTHER_TOKEN, TOKEN

WITHIN = BlockRange(1, 40)


@st.composite
def ranges(draw: st.DrawFn) -> BlockRange:
    first = draw(st.integers(1, 40))
    return BlockRange(first, draw(st.integers(first, 40)))


@given(
    st.fixed_dictionaries({token: st.lists(ranges(), max_size=4) for token in (NATIVE, TOKEN, OTHER_TOKEN)}),
    st.integers(1, 50),
)
def test_one_after_the_other_all_gaps_are_read_and_no_block_twice(
    covered: dict[bytes, list[BlockRange]], most: int
) -> None:
    while wanted := next_backfill({token: gaps(read, WITHIN) for token, read in covered.items()}, most=most):
        lacking = list(covered) if wanted.tokens is None else wanted.tokens
        missing = {token: {n for gap in gaps(covered[token], WITHIN) for n in gap} for token in lacking}
        if wanted.tokens is None:
            assert set(wanted.blocks) <= missing[NATIVE]
        else:
            assert not gaps(covered[NATIVE], WITHIN), "whole blocks first: they close the gaps of all"
            assert all(set(wanted.blocks) <= missing[token] for token in lacking)
            assert len(wanted.blocks) <= most
        for token in lacking:
            covered[token].append(wanted.blocks)
    assert not any(gaps(read, WITHIN) for read in covered.values())


def test_tokens_that_lack_the_same_blocks_are_read_together() -> None:
    unread = {NATIVE: [], TOKEN: [BlockRange(5, 30)], OTHER_TOKEN: [BlockRange(5, 20), BlockRange(25, 30)]}
    assert next_backfill(unread, most=100) == Backfill(BlockRange(5, 20), tokens=(TOKEN, OTHER_TOKEN))
    assert next_backfill(unread, most=3) == Backfill(BlockRange(5, 7), tokens=(TOKEN, OTHER_TOKEN))
    late = {NATIVE: [], TOKEN: [BlockRange(5, 30)], OTHER_TOKEN: [BlockRange(9, 20)]}
    assert next_backfill(late, most=100) == Backfill(BlockRange(5, 8), tokens=(TOKEN,))
