"""What an endpoint shows: balances after a block, the first block that holds them, and what a trace of it tells."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ctrip.blockchain.balances import balances_at
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.traces import hops_in
from ctrip.database import holdings
from ctrip.domain.inflows import Hop, Place, Search, explained_by
from ctrip.domain.scanning import Header
from ctrip.errors import NodeRefused
from ctrip.runs import Run


@dataclass(frozen=True)
class Seen:
    """The wei that an address holds after a block: as an endpoint showed, and as the rows say."""

    address: bytes
    at: Header
    balance: int
    known: int

    @property
    def surplus(self) -> int:
        """What the rows do not explain; less than nothing where they say more."""
        return self.balance - self.known


@dataclass(frozen=True)
class Look:
    """One run's look at a chain by one endpoint.

    `read` are the headers of the reorg window by number, `block` the newest one. `first` keeps the run's lease, and
    `traces` the hops of the blocks that were traced.
    """

    run: Run
    first: ChainClient
    read: Mapping[int, Header]
    block: Header
    final_block: int
    traces: dict[int, list[Hop]] = field(default_factory=dict)

    @property
    def final_time(self) -> datetime:
        """The time of the final block; of the newest one where that is older than all that is kept."""
        return self.read.get(self.final_block, self.block).time


def see(look: Look, places: Mapping[bytes, Header]) -> list[Seen]:
    """Look at addresses after their blocks. One whose money is in motion is left out: the rows cannot say.

    Where the endpoint has not the state of an older block any more, the newest is looked at instead.
    """
    at_block: dict[Header, list[bytes]] = defaultdict(list)
    for address, header in places.items():
        at_block[header].append(address)
    told: dict[bytes, tuple[Header, int]] = {}
    for header, addresses in at_block.items():
        try:
            at, balances = header, balances_at(look.first, addresses, block=header)
        except NodeRefused:
            if header == look.block:
                raise
            at, balances = look.block, balances_at(look.first, addresses, block=look.block)
        told |= {address: (at, balance) for address, balance in zip(addresses, balances, strict=True)}
    known = known_at(look, {address: at for address, (at, _) in told.items()})
    return [Seen(address, *told[address], known[address]) for address in sorted(known)]


def known_at(look: Look, places: Mapping[bytes, Header]) -> dict[bytes, int]:
    """Return what addresses must hold after their blocks; one whose money is in motion is left out."""
    with look.run.ctx.sessions.begin() as session:
        wanted = [Place(address, header.number) for address, header in places.items()]
        return holdings.coin_at(session, look.run.chain.chain_id, wanted)


def seen_at(look: Look, address: bytes, header: Header) -> Seen | None:
    """Look at one address; None where the endpoint has not the state of that block any more, or money is in motion."""
    try:
        (balance,) = balances_at(look.first, [address], block=header)
    except NodeRefused:
        return None
    known = known_at(look, {address: header})
    return Seen(address, header, balance, known[address]) if address in known else None


def found_in(look: Look, seen: Seen, *, after: int) -> Seen:
    """Find the first block that holds all of a surplus: one later than `after`, and as deep as the state is there."""
    search = Search(low=max(after, min(look.read) - 1), high=seen.at.number)
    found = seen
    while not search.is_over:
        middle = seen_at(look, seen.address, look.read[search.middle])
        holds_it = middle is not None and middle.surplus >= seen.surplus
        if middle is not None and holds_it:
            found = middle
        search = search.told(holds_it=holds_it)
    return found


def traced(look: Look, found: Iterable[Seen]) -> dict[bytes, tuple[Hop, ...]]:
    """Return, by address, the hops of coin that explain a surplus where it was found."""
    hops: dict[bytes, tuple[Hop, ...]] = {}
    for each in found:
        if each.at.number not in look.traces:
            look.traces[each.at.number] = hops_in(look.first, each.at) or []
        of_block = look.traces[each.at.number]
        hops[each.address] = tuple(explained_by(of_block, recipient=each.address, inflow=each.surplus))
    return hops
