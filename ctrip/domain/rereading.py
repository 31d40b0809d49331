"""What reading blocks again shows: how the rows differ from what is there, and whom to believe where endpoints differ.

A transfer is its facts, not its place alone: two tellings agree only where all of them are the same.

                                  more deny it   as many    more show it
a contested transfer              denied         kept       kept
what is shown instead of it       left           left       stored

Two at least must deny it where several are listed. An endpoint that told of it and does not answer any more has shown
it; whoever has another block there, or none, says nothing.

What is denied is false, and is taken back, where most show the very same instead of it. If each tells another story it
is kept until they agree: what is true of these would be lost with the lie, for nothing would be read again.
"""

from collections import Counter
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
    """Which contested transfers are denied, which of these are false, and what most endpoints show in their blocks.

    `there` has the latter by the first endpoint that shows it. `liars` are those that go on telling of what is false.
    """

    denied: tuple[Transfer, ...] = ()
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


def recount(
    contested: Sequence[Transfer], tellings: Mapping[str, Telling | None], *, unsure: Collection[bytes] = ()
) -> Recount:
    """Weigh what each endpoint that is listed tells of the blocks of contested transfers; None: it tells nothing.

    Endpoints may honestly differ in the amounts of the tokens that are `unsure`.
    """
    unsure = {*unsure, *_unsure(contested)}
    said = {
        endpoint: None if telling is None else _Said(telling, unsure=unsure) for endpoint, telling in tellings.items()
    }
    denied = tuple(each for each in contested if _is_denied(each, said, unsure=unsure))
    false = tuple(each for each in denied if _is_agreed_on(each, said.values()))
    hashes, known = {each.block_hash for each in false}, set[Facts]()
    there: dict[str, tuple[Sighting, ...]] = {}
    for endpoint, telling in tellings.items():
        for each in () if telling is None else telling.sightings:
            facts = facts_of(each, unsure=unsure)
            if each.block_hash not in hashes or facts in known:
                continue
            known.add(facts)
            voices = [_voice(one, each.block_hash, facts) for one in said.values()]
            if weigh(voices, is_too_deep=False) is Verdict.DENIED:
                there[endpoint] = (*there.get(endpoint, ()), each)
    lies = {facts_of(each, unsure=unsure) for each in false}
    liars = (endpoint for endpoint, one in said.items() if one is not None and not lies.isdisjoint(one.facts))
    return Recount(denied, false, there, tuple(liars))


class _Said:
    """A telling, as its facts are looked up."""

    def __init__(self, telling: Telling, *, unsure: Collection[bytes]) -> None:
        self.hashes, self.receipts = telling.hashes, telling.receipts
        self.facts = {facts_of(each, unsure=unsure) for each in telling.sightings}
        self.positions = {position_of(each) for each in telling.sightings}
        self._told = [(each, facts_of(each, unsure=unsure)) for each in telling.sightings]

    def instead_of(self, transfer: Transfer) -> frozenset[Facts]:
        """Return what it shows that a transfer may be a bent telling of: of its transaction, or to its recipient."""
        return frozenset(
            facts
            for each, facts in self._told
            if each.block_hash == transfer.block_hash
            and (
                each.tx_hash == transfer.tx_hash or (each.recipient, each.token) == (transfer.recipient, transfer.token)
            )
        )


def _is_agreed_on(transfer: Transfer, said: Iterable[_Said | None]) -> bool:
    """True where most of the endpoints that have a transfer's block show the very same instead of it."""
    shown = Counter(one.instead_of(transfer) for one in said if one is not None and transfer.block_hash in one.hashes)
    return 2 * max(shown.values(), default=0) > shown.total()


def _is_denied(transfer: Transfer, said: Mapping[str, _Said | None], *, unsure: Collection[bytes]) -> bool:
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
