from datetime import timedelta

import pytest
import sqlalchemy as sa

from ctrip.database import coverage, loops
from ctrip.database.engine import Sessions
from ctrip.database.models import coverage as rows
from ctrip.domain.addresses import NATIVE
from ctrip.domain.scanning import BlockRange
from ctrip.errors import NotFound
from tests.factories import CHAIN_ID, OTHER_CHAIN_ID, TOKEN, block_hash, header

pytestmark = pytest.mark.infra
BOTH = (NATIVE, TOKEN)


def read(
    sessions: Sessions, first: int, last: int, *, tokens: tuple[bytes, ...] = BOTH, fork: str = "", endpoint: str = "a"
) -> None:
    with sessions.begin() as session:
        coverage.extend(
            session,
            CHAIN_ID,
            tokens=tokens,
            read=BlockRange(first, last),
            parent_hash=block_hash(first - 1, fork),
            last_hash=block_hash(last, fork),
            endpoint=endpoint,
        )


def covered(sessions: Sessions, token: bytes = TOKEN) -> list[tuple[int, int, str]]:
    with sessions.begin() as session:
        return [
            (each.blocks.first, each.blocks.last, each.endpoint) for each in coverage.find(session, CHAIN_ID, token)
        ]


def test_a_step_at_the_head_grows_the_ranges_of_all_assets_in_place(sessions: Sessions) -> None:
    read(sessions, 5, 6)
    read(sessions, 7, 7)
    read(sessions, 8, 20)
    with sessions.begin() as session:
        (found,) = coverage.find(session, CHAIN_ID, NATIVE)
    assert (found.blocks, found.endpoint) == (BlockRange(5, 20), "a")
    assert (found.parent_hash, found.last_hash) == (block_hash(4), block_hash(20))
    assert found.last_read_at > found.first_read_at
    assert covered(sessions) == [(5, 20, "a")]


@pytest.mark.parametrize(
    ("why", "step"),
    [
        ("blocks are between them", {"first": 12, "last": 13}),
        ("another endpoint told of them", {"first": 11, "last": 13, "endpoint": "b"}),
        ("they are of a fork", {"first": 11, "last": 13, "fork": "b"}),
        ("they were read already", {"first": 8, "last": 13}),
    ],
)
def test_blocks_that_do_not_go_on_from_a_range_are_one_of_their_own(
    sessions: Sessions, why: str, step: dict[str, object]
) -> None:
    read(sessions, 5, 10)
    read(sessions, **step)  # type: ignore[arg-type]
    assert covered(sessions) == [(5, 10, "a"), (step["first"], step["last"], step.get("endpoint", "a"))], why


def test_an_asset_that_is_listed_later_has_a_range_from_then_on_while_the_others_grow(sessions: Sessions) -> None:
    read(sessions, 5, 10, tokens=(NATIVE,))
    read(sessions, 11, 12)
    read(sessions, 13, 14)
    assert (covered(sessions, NATIVE), covered(sessions)) == ([(5, 14, "a")], [(11, 14, "a")])
    with sessions.begin() as session:
        assert coverage.gaps(session, CHAIN_ID, TOKEN, BlockRange(3, 16)) == [BlockRange(3, 10), BlockRange(15, 16)]
        assert coverage.gaps(session, CHAIN_ID, TOKEN, BlockRange(11, 13)) == []
        assert coverage.gaps(session, OTHER_CHAIN_ID, TOKEN, BlockRange(5, 6)) == [BlockRange(5, 6)]


def test_a_reorg_shortens_the_ranges_that_it_reaches_and_takes_those_above(sessions: Sessions) -> None:
    for first, last in ((5, 10), (21, 30), (31, 40)):
        read(sessions, first, last, endpoint=str(first))
    with sessions.begin() as session:
        coverage.cut(session, CHAIN_ID, after=header(25))
    assert covered(sessions, NATIVE) == covered(sessions) == [(5, 10, "5"), (21, 25, "21")]
    read(sessions, 26, 28, endpoint="21")
    assert covered(sessions)[-1] == (21, 28, "21"), "the canonical blocks go on from the ancestor"


def test_what_lies_ahead_is_told_asset_by_asset(sessions: Sessions) -> None:
    read(sessions, 5, 12)
    read(sessions, 31, 40)
    read(sessions, 21, 30, endpoint="b")
    read(sessions, 51, 60, tokens=(NATIVE,))
    with sessions.begin() as session:
        found = coverage.beyond(session, CHAIN_ID, tokens=BOTH, after=10)
        assert {token: [each.blocks.first for each in ranges] for token, ranges in found.items()} == {
            NATIVE: [5, 21, 31, 51],
            TOKEN: [5, 21, 31],
        }


def test_rows_that_follow_one_another_become_one_and_of_several_endpoints_when_they_are_old(
    sessions: Sessions,
) -> None:
    for first, endpoint in ((31, "a"), (21, "a"), (11, "a"), (61, "a"), (41, "b")):
        read(sessions, first, first + 9, endpoint=endpoint)
    with sessions.begin() as session:
        assert coverage.join(session, CHAIN_ID, upto=60, limit=1000) == 4, "two of each asset"
    assert covered(sessions) == covered(sessions, NATIVE) == [(11, 40, "a"), (41, 50, "b"), (61, 70, "a")]
    with sessions.begin() as session:
        session.execute(sa.update(rows).values(last_read_at=rows.c.last_read_at - timedelta(days=2)))
        assert coverage.join(session, CHAIN_ID, upto=49, limit=1000) == 0, "a listener may still look for what is ahead"
        assert coverage.join(session, CHAIN_ID, upto=50, limit=1) == 1
        assert coverage.join(session, CHAIN_ID, upto=50, limit=1000) == 1
        assert coverage.join(session, CHAIN_ID, upto=50, limit=1000) == 0
    assert covered(sessions) == covered(sessions, NATIVE) == [(11, 50, "a, b"), (61, 70, "a")]
    read(sessions, 51, 60, endpoint="b")
    assert covered(sessions) == [(11, 60, "a, b"), (61, 70, "a")], "it goes on growing, whichever of them tells"
    read(sessions, 71, 80, fork="another")
    with sessions.begin() as session:
        assert coverage.join(session, CHAIN_ID, upto=80, limit=1000) == 2
    assert covered(sessions) == covered(sessions, NATIVE) == [(11, 70, "a, b"), (71, 80, "a")], "of a fork"
    with sessions.begin() as session:
        assert coverage.find(session, CHAIN_ID, TOKEN)[0].last_hash == block_hash(70)


def test_a_loop_is_locked_without_a_claim_and_there_must_be_one(sessions: Sessions) -> None:
    with sessions.begin() as session, pytest.raises(NotFound, match="listener:1"):
        loops.lock(session, "listener:1")
    with sessions.begin() as session:
        loops.ensure(session, kind="listener", chain_id=1, every=timedelta(seconds=1))
    with sessions.begin() as mine, sessions.begin() as other:
        loops.lock(mine, "listener:1")
        other.execute(sa.text("SET LOCAL lock_timeout = '10ms'"))
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            loops.lock(other, "listener:1")
