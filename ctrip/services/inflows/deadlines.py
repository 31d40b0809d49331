"""Deadlines that left the reorg window: no header of their blocks is stored, and one endpoint may lie of these."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain

from ctrip.blockchain.history import search
from ctrip.blockchain.verifying import Word
from ctrip.domain.scanning import Header
from ctrip.errors import BlockVanished, ChainError, NodeRefused
from ctrip.services.inflows.looking import Look, Seen, seen_at
from ctrip.services.inflows.witnesses import endpoints_of, hear, hear_blocks


def by_deadlines(look: Look, deadlines: Mapping[bytes, datetime]) -> tuple[dict[bytes, Seen], set[bytes]]:
    """Look at addresses after the last blocks before their deadlines: what had come was on time.

    Where the look's own endpoint has not a block, or its state, any more, others may have. Returns what had come, by
    address, and the addresses to look at once more: endpoints tell different stories of them, another block or that
    something had come after all, or who may know is away. Left out are those where nothing had come, or nobody knows.
    """
    in_time, contested, open_ones, is_away = dict[bytes, Seen](), set[bytes](), dict(deadlines), False
    for endpoint in chain([look.first], endpoints_of(look.run, but=look.first)):
        if not open_ones:
            break
        try:
            there, denied = _told_by(replace(look, first=endpoint), open_ones)
        except NodeRefused:
            continue
        except ChainError:
            is_away = True
            continue
        in_time |= {each.address: each for each in there if each.surplus > 0}
        contested |= denied
        for address in (*denied, *(each.address for each in there)):
            open_ones.pop(address, None)
    # Who is only away may tell the next time; what is stored before that would be late for good.
    return in_time, contested | (open_ones.keys() if is_away else set())


def _told_by(look: Look, deadlines: Mapping[bytes, datetime]) -> tuple[list[Seen], set[bytes]]:
    """Return what the look's own endpoint shows at the deadlines, and the addresses of which others tell otherwise."""
    ends, contested = _ends(look, deadlines)
    there = [seen for address, end in ends.items() if (seen := seen_at(look, address, end)) is not None]
    words = hear(look, [each for each in there if each.surplus <= 0])
    contested |= {address for address, word in words.items() if word is Word.CONTRADICTED}
    return there, contested


def _ends(look: Look, deadlines: Mapping[bytes, datetime]) -> tuple[dict[bytes, Header], set[bytes]]:
    """Return the last block before each deadline by address, and the addresses for which it is contested."""
    numbers = {address: _number(look, deadline) for address, deadline in deadlines.items()}
    told = {address: number for address, number in numbers.items() if number is not None}
    heard = hear_blocks(look, {number + above for number in told.values() for above in (0, 1)})
    ends, contested = dict[bytes, Header](), set[bytes]()
    for address, number in told.items():
        last, after = heard.get(number), heard.get(number + 1)
        if last and after and _is_end(last, after, deadline=deadlines[address]):
            ends[address] = last[0]
        else:
            contested.add(address)
    return ends, contested


def _is_end(last: tuple[Header, Word], after: tuple[Header, Word], *, deadline: datetime) -> bool:
    is_open = Word.CONTRADICTED in (last[1], after[1])
    return not is_open and last[0].time <= deadline < after[0].time


def _number(look: Look, deadline: datetime) -> int | None:
    """Return the last block not after a deadline; the oldest one that is kept is after all of these."""
    try:
        first_after, _ = search(look.first, deadline + timedelta.resolution, low=1, high=min(look.read) - 1)
    except BlockVanished:
        return None
    return first_after - 1
