"""Whose balance is looked at in this run, and after which block."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from ctrip.database import balance_checks
from ctrip.database.balance_checks import Rounds, Watched
from ctrip.domain.chains import Chain
from ctrip.domain.loops import BALANCES_EVERY
from ctrip.domain.scanning import Header

WATCHED_FOR = timedelta(hours=1)
"""How long after its deadline a payment that is not paid is still looked at in each round."""
MOST_OTHERS = 2_000
"""The most addresses of a run that nobody waits for; a million of them are looked at in three hours."""
SHORTEST_PACE = timedelta(seconds=5)
CALL_EACH = timedelta(seconds=1)
"""A round that takes several runs goes on with a call in so long: 10,000 addresses, where nodes allow it."""


@dataclass(frozen=True)
class Turn:
    """What to look at: a block by address.

    Of `deadlines` this is one of the last looks, and of `old_deadlines` the block left the reorg window unseen. `after`
    is where the turn leads, `held` where it does if deadlines are to be looked at again. `is_over`: so is the round.
    """

    places: dict[bytes, Header]
    deadlines: frozenset[bytes]
    old_deadlines: dict[bytes, datetime]
    after: Rounds
    held: Rounds
    is_over: bool


def next_turn(
    session: Connection,
    rounds: Rounds,
    *,
    read: Mapping[int, Header],
    block: Header,
    final_time: datetime,
    every: timedelta,
    most: int,
) -> Turn:
    """Return what to look at now: `most` addresses at the most.

    Those with a deadline between the final block and `block` are looked at there, when a round begins and when it lasts
    for longer than `every`: whatever came by then was on time.
    """
    since, after = rounds.deadlines_until or final_time, rounds
    ended: list[Watched] = []
    if since > final_time or _is_due(rounds, read=read, now=block.time, every=every):
        ended = balance_checks.with_deadline(session, after=since, until=block.time, limit=most)
        after = replace(rounds, deadlines_until=final_time if len(ended) < most else ended[-1].expires_at)
    room = most - len(ended)
    place = None if rounds.watched_until is None else (rounds.watched_until, rounds.watched_id or "")
    watched = balance_checks.watched(session, since=block.time - WATCHED_FOR, after=place, limit=room)
    room_for_others = min(MOST_OTHERS, room - len(watched))
    others = balance_checks.addresses_after(session, rounds.others_after or b"", limit=room_for_others)
    at_end = {each.address: at_deadline(each.expires_at, read=read) for each in ended}
    if room_for_others:
        after = replace(after, others_after=others[-1] if len(others) == room_for_others else None)
    began_at, is_over = rounds.round_block or block.number, len(watched) < room
    if is_over:
        after = replace(after, watched_until=None, watched_id=None, round_block=None, checked_block=began_at)
    else:
        last = (watched[-1].expires_at, watched[-1].payment_id) if watched else place or (None, None)
        after = replace(after, watched_until=last[0], watched_id=last[1], round_block=began_at)
    held = after
    if room:
        held = replace(after, deadlines_until=_held(since, after.deadlines_until, now=block.time))
    # A turn that is full of deadlines goes on even so, or those that are contested would keep it from all others.
    return Turn(
        places=dict.fromkeys([*others, *(each.address for each in watched)], block)
        | {address: header or block for address, header in at_end.items()},
        deadlines=frozenset(at_end),
        old_deadlines={each.address: each.expires_at for each in ended if at_end[each.address] is None},
        after=after,
        held=held,
        is_over=is_over,
    )


def at_deadline(expires_at: datetime, *, read: Mapping[int, Header]) -> Header | None:
    """Return the newest block that is not later than a deadline; None where it left the reorg window."""
    in_time = (header for header in read.values() if header.time <= expires_at)
    return max(in_time, key=lambda header: header.number, default=None)


def pace(chain: Chain, *, to_finality: timedelta, calls: int | None = None) -> timedelta:
    """Return how long the loop may rest; after so many `calls` of a round that is not over, less.

    A block takes `to_finality` to become final, which may expire payments: what came before a deadline should be seen
    before that.
    """
    rest = max(chain.poll, SHORTEST_PACE, min(BALANCES_EVERY, to_finality / 2))
    return rest if calls is None else min(rest, calls * CALL_EACH)


def _is_due(rounds: Rounds, *, read: Mapping[int, Header], now: datetime, every: timedelta) -> bool:
    """True where a round begins, or has lasted for so long that there are deadlines again that should be seen."""
    began_at = None if rounds.round_block is None else read.get(rounds.round_block)
    return rounds.watched_until is None or began_at is None or now - began_at.time >= every


def _held(since: datetime, until: datetime | None, *, now: datetime) -> datetime:
    """Return until when deadlines were looked at where endpoints contradict each other: for so long, nobody knows."""
    return min(until or now, max(since, now - WATCHED_FOR))
