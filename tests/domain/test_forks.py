import pytest

from ctrip.domain.forks import Verdict, Voice, voice_of, weigh
from ctrip.domain.scanning import Header
from tests.factories import header

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
