import pytest

from ctrip.domain.processing import COIN_BLOCKS, LOGS_SPAN, WHOLE_SPAN, Course, course


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
