import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrip.domain.scanning import BlockRange, common_ancestor, is_linked, next_range
from tests.factories import block_hash, header

BLOCKS = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("read_block", "head_block", "wanted"),
    [
        (10, 11, BlockRange(11, 11)),
        (10, 30, BlockRange(11, 30)),
        (10, 31, BlockRange(11, 30)),
        (0, 1000, BlockRange(1, 20)),
        (10, 10, None),
        (10, 9, None),  # a node that lags
    ],
)
def test_the_next_blocks_follow_what_was_read_up_to_the_head(
    read_block: int, head_block: int, wanted: BlockRange | None
) -> None:
    assert next_range(read_block, head_block, most=20) == wanted


@given(BLOCKS, BLOCKS, st.integers(1, 100))
def test_reading_range_after_range_misses_no_block_and_reads_none_twice(start: int, head: int, most: int) -> None:
    at = start
    blocks: list[int] = []
    while (wanted := next_range(at, head, most=most)) is not None:
        assert 1 <= len(wanted) <= most
        blocks += range(wanted.first, wanted.last + 1)
        at = wanted.last
    assert blocks == list(range(start + 1, head + 1))


def test_headers_are_linked_where_each_names_the_hash_before_it() -> None:
    chain = [header(n) for n in range(5, 9)]
    assert is_linked(chain, parent_hash=block_hash(4))
    assert is_linked([], parent_hash=block_hash(4))
    assert not is_linked(chain, parent_hash=block_hash(4, "other"))
    assert not is_linked([*chain[:2], *chain[3:]], parent_hash=block_hash(4)), "one is missing"
    assert not is_linked([*chain[:2], header(7, "other"), chain[3]], parent_hash=block_hash(4)), "one is of a fork"
    assert not is_linked(list(reversed(chain)), parent_hash=block_hash(4))


@pytest.mark.parametrize(
    ("canonical", "ancestor"),
    [
        ({5: "", 6: "", 7: "", 8: ""}, 8),  # nothing changed
        ({5: "", 6: "", 7: "", 8: "new"}, 7),
        ({5: "", 6: "", 7: "new", 8: "new"}, 6),
        ({5: "", 6: "new", 7: "new", 8: "new", 9: "new"}, 5),
        ({5: "", 6: ""}, 6),  # the node's chain is shorter now
        ({5: "new", 6: "new", 7: "new", 8: "new"}, None),  # deeper than what is stored
        ({}, None),
    ],
)
def test_the_ancestor_is_the_newest_stored_block_that_is_still_there(
    canonical: dict[int, str], ancestor: int | None
) -> None:
    stored = [header(n) for n in range(5, 9)]
    hashes = {number: block_hash(number, fork) for number, fork in canonical.items()}
    found = common_ancestor(stored, hashes)
    assert (found and found.number) == ancestor
    assert common_ancestor(list(reversed(stored)), hashes) == found
