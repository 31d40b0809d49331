"""Whose balance is looked at in this run, and after which block."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from ctrip.database import balance_checks
from ctrip.database.balance_checks import Rounds
from ctrip.domain.chains import Chain
from ctrip.domain.loops import BALANCES_EVERY
from ctrip.domain.scanning import Header

WATCHED_FOR = timedelta(hours=1)
"""How long after its deadline a payment that is not paid is still looked at in each round."""
MOST_OTHERS = 2_000
"""The most addresses of a run that nobody waits for; a million of them are looked at in three hours."""


SHORTEST_PACE = timedelta(seconds=5)


@dataclass(frozen=True)
class Turn:
    """What to look at: a block by address. `old_deadlines` left the reorg window unseen; `after` is where it leads."""

    places: dict[bytes, Header]
    old_deadlines: dict[bytes, datetime]
    after: Rounds


def next_turn(
    session: Session, rounds: Rounds, *, read: Mapping[int, Header], block: Header, final_block: int, most: int
) -> Turn:
    """Return what to look at now: `most` addresses at the most.

    Those with a deadline between the final block and `block` are looked at there: whatever came by then was on time.
    """
    final_time = read[final_block].time if final_block in read else block.time
    ended = balance_checks.with_deadline(
        session, after=rounds.deadlines_until or final_time, until=block.time, limit=most
    )
    room = most - len(ended)
    place = None if rounds.watched_until is None else (rounds.watched_until, rounds.watched_id or "")
    watched = balance_checks.watched(session, since=block.time - WATCHED_FOR, after=place, limit=room)
    room_for_others = min(MOST_OTHERS, room - len(watched))
    others = balance_checks.addresses_after(session, rounds.others_after or b"", limit=room_for_others)
    at_end = {each.address: at_deadline(each.expires_at, read=read) for each in ended}
    after = replace(rounds, deadlines_until=final_time if room else ended[-1].expires_at)
    if room_for_others:
        after = replace(after, others_after=others[-1] if len(others) == room_for_others else None)
    began_at = rounds.round_block or block.number
    if len(watched) < room:
        after = replace(after, watched_until=None, watched_id=None, round_block=None, checked_block=began_at)
    else:
        last = (watched[-1].expires_at, watched[-1].payment_id) if watched else place or (None, None)
        after = replace(after, watched_until=last[0], watched_id=last[1], round_block=began_at)
    return Turn(
        places=dict.fromkeys([*others, *(each.address for each in watched)], block)
        | {address: header or block for address, header in at_end.items()},
        old_deadlines={each.address: each.expires_at for each in ended if at_end[each.address] is None},
        after=after,
    )


def at_deadline(expires_at: datetime, *, read: Mapping[int, Header]) -> Header | None:
    """Return the newest block that is not later than a deadline; None where it left the reorg window."""
    in_time = (header for header in read.values() if header.time <= expires_at)
    return max(in_time, key=lambda header: header.number, default=None)


def pace(chain: Chain, *, to_finality: timedelta) -> timedelta:
    """Return how long the loop may rest. A block takes `to_finality` to become final, which may expire payments.

    What came before a deadline should be seen before that.
    """
    return max(chain.poll, SHORTEST_PACE, min(BALANCES_EVERY, to_finality / 2))
