"""What reading blocks again shows: how the rows differ from what is there, and whom to believe where endpoints differ.

A transfer is its facts, not its place alone: two tellings agree only where all of them are the same.

                                  more deny it   as many    more show it
a contested transfer              false          kept       kept
what is shown instead of it       left           left       stored

Two at least must deny it where several are listed. An endpoint that told of it and does not answer any more has shown
it; whoever has another block there, or none, says nothing. And most must show the very same instead of it. If each
tells another story it is kept: what is true of these would be lost with the lie, for nothing would be read again.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ctrip.domain.addresses import NATIVE
from ctrip.domain.forks import Verdict, Voice, weigh
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Sighting, Transfer

LogPosition = tuple[bytes, bytes | None, int]
"""Where a transfer is said to be: block, transaction and log. One transfer alone can be there."""
Facts = tuple[object, ...]


@dataclass(frozen=True)
class Difference:
    """How rows differ from what blocks hold: sightings that are not stored, transfers that are not there."""

    missing: tuple[Sighting, ...] = ()
    strangers: tuple[Transfer, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.strangers)


@dataclass(frozen=True)
class Telling:
    """What one endpoint tells of some blocks: the hashes of those that it has, and the transfers that it shows there.

    `receipts` are its voices, by id, on contested transfers in whose place it shows nothing.
    """

    hashes: frozenset[bytes]
    sightings: tuple[Sighting, ...]
    receipts: Mapping[str, Voice] = field(default_factory=dict)


@dataclass(frozen=True)
class Recount:
    """Which contested transfers are false, and what most endpoints show in those blocks, by the first one that does.

    `liars` are the endpoints that go on telling of what is false.
    """

    false: tuple[Transfer, ...] = ()
    there: Mapping[str, tuple[Sighting, ...]] = field(default_factory=dict)
    liars: tuple[str, ...] = ()


def position_of(told: Sighting | Transfer) -> LogPosition:
    """Return where a transfer is."""
    return told.block_hash, told.tx_hash, told.log_index


def facts_of(told: Sighting | Transfer, *, unsure: Collection[bytes] = ()) -> Facts:
    """Return all that a telling says of a transfer, without the amount where its token is among `unsure`."""
    amount = None if told.token in unsure else told.amount
    where = (told.block_number, told.block_time)
    return (*position_of(told), *where, told.token, told.sender, told.recipient, amount)


def difference(stored: Sequence[Transfer], sightings: Sequence[Sighting], *, blocks: Collection[int]) -> Difference:
    """Compare canonical transfers with what was sighted for the same addresses in `blocks`, which were read whole.

    Coin that was read from its transaction is no stranger where its log is seen (EIP-7708), which takes its place.
    """
    unsure = _unsure(stored)
    there = {facts_of(each, unsure=unsure): each for each in sightings if each.block_number in blocks}
    here = {facts_of(each, unsure=unsure): each for each in stored if each.block_number in blocks}
    return Difference(
        missing=tuple(each for facts, each in there.items() if facts not in here),
        strangers=tuple(
            each for facts, each in here.items() if facts not in there and not _is_logged(each, there.values())
        ),
    )


def recount(contested: Sequence[Transfer], tellings: Mapping[str, Telling | None]) -> Recount:
    """Weigh what each endpoint that is listed tells of the blocks of contested transfers; None: it tells nothing."""
    unsure = _unsure(contested)
    said = {
        endpoint: None if telling is None else _Said(telling, unsure=unsure) for endpoint, telling in tellings.items()
    }
    agreed = {block: _agreed_in(block, said.values()) for block in {each.block_hash for each in contested}}
    false = tuple(
        each for each in contested if agreed[each.block_hash] is not None and _is_false(each, said, unsure=unsure)
    )
    wanted = {facts for each in false for facts in agreed[each.block_hash] or ()}
    there: dict[str, tuple[Sighting, ...]] = {}
    for endpoint, telling in tellings.items():
        for each in () if telling is None else telling.sightings:
            facts = facts_of(each, unsure=unsure)
            if facts in wanted:
                wanted.remove(facts)
                there[endpoint] = (*there.get(endpoint, ()), each)
    lies = {facts_of(each, unsure=unsure) for each in false}
    liars = (endpoint for endpoint, one in said.items() if one is not None and not lies.isdisjoint(one.facts))
    return Recount(false, there, tuple(liars))


class _Said:
    """A telling, as its facts are looked up."""

    def __init__(self, telling: Telling, *, unsure: Collection[bytes]) -> None:
        self.hashes, self.receipts = telling.hashes, telling.receipts
        self.facts = {facts_of(each, unsure=unsure) for each in telling.sightings}
        self.positions = {position_of(each) for each in telling.sightings}
        self._blocks = defaultdict[bytes, set[Facts]](set)
        for each in telling.sightings:
            self._blocks[each.block_hash].add(facts_of(each, unsure=unsure))

    def in_block(self, block_hash: bytes) -> frozenset[Facts]:
        """Return the facts of what it shows in one block."""
        return frozenset(self._blocks[block_hash])


def _agreed_in(block_hash: bytes, said: Iterable[_Said | None]) -> frozenset[Facts] | None:
    """Return just what most endpoints that have a block show there; None where no most of them show the same."""
    shown = Counter(one.in_block(block_hash) for one in said if one is not None and block_hash in one.hashes)
    ((agreed, count),) = shown.most_common(1) or [(frozenset[Facts](), 0)]
    return agreed if 2 * count > shown.total() else None


def _is_false(transfer: Transfer, said: Mapping[str, _Said | None], *, unsure: Collection[bytes]) -> bool:
    voices, facts = list[Voice](), facts_of(transfer, unsure=unsure)
    for endpoint, one in said.items():
        voice = _voice(one, transfer.block_hash, facts)
        if voice is Voice.GONE and one is not None and position_of(transfer) not in one.positions:
            voice = one.receipts.get(transfer.id, Voice.SILENT)
        # What it told once stands until it takes that back.
        voices.append(Voice.KEPT if voice is Voice.SILENT and endpoint == transfer.endpoint else voice)
    # As with what stops a chain, one alone does not do.
    return weigh(voices, is_too_deep=True) is Verdict.FOLLOWED


def _voice(one: _Said | None, block_hash: bytes, facts: Facts) -> Voice:
    if one is None or block_hash not in one.hashes:
        return Voice.SILENT
    return Voice.KEPT if facts in one.facts else Voice.GONE


def _is_logged(transfer: Transfer, sightings: Iterable[Sighting]) -> bool:
    return transfer.log_index == NATIVE_LOG_INDEX and any(
        (each.token, each.block_hash, each.tx_hash, each.sender, each.recipient, each.amount)
        == (NATIVE, transfer.block_hash, transfer.tx_hash, transfer.sender, transfer.recipient, transfer.amount)
        for each in sightings
    )


def _unsure(transfers: Sequence[Transfer]) -> set[bytes]:
    """Return the tokens whose amounts are differences of balances, which nodes know of new blocks alone."""
    return {each.token for each in transfers if not each.is_payable}
