"""Whether the next step has something to verify, and need not wait for a block."""

from dataclasses import replace

import pytest

from ctrip.domain.transfers import Transfer
from ctrip.services.scanning.verifying import MOST_AT_ONCE, Verdicts, is_more_due
from tests.factories import make_transfer

UNVERIFIED = replace(make_transfer(1000, 90), required=3, is_verified=False)
IDS = [str(number) for number in range(MOST_AT_ONCE)]


@pytest.mark.parametrize(
    ("found", "borne_out", "head", "is_due"),
    [
        ([], [], 92, False),
        ([UNVERIFIED], [], 91, False),
        ([UNVERIFIED], [], 92, True),
        ([replace(UNVERIFIED, is_verified=True)], [], 92, False),
        ([], IDS[1:], 92, False),  # the others are asked for again, and not at once
        ([], IDS, 92, True),
    ],
)
def test_more_is_due_where_what_was_found_is_deep_or_a_step_bore_out_all_that_it_asked_for(
    found: list[Transfer], borne_out: list[str], head: int, is_due: bool
) -> None:
    assert is_more_due(found, Verdicts(borne_out=borne_out), head=head) is is_due
