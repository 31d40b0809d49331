"""Who is asked for balances: each endpoint in its turn. What one shows is asked of the others: it may lie."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b
from itertools import chain, islice

from ctrip.blockchain.balances import balances_at
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.fleet import BALANCES
from ctrip.blockchain.others import others
from ctrip.blockchain.verifying import Word
from ctrip.domain.addresses import checksum_address
from ctrip.domain.scanning import Header
from ctrip.errors import ChainError
from ctrip.runs import Run
from ctrip.services.inflows.looking import Look, Seen, see


def drawn(number: int, of: int) -> int:
    """Return which of so many endpoints the run of this number begins with.

    By lot: what one of them hides another one sees soon, in whichever runs of a round an address comes.
    """
    return int.from_bytes(blake2b(number.to_bytes(8), digest_size=8).digest()) % of


def in_turn(run: Run) -> Iterator[ChainClient]:
    """Yield a client of each endpoint that may answer: the one whose turn it is first, and then the best ones."""
    ranked = endpoints_of(run)
    count = len(run.ctx.clients[run.chain.chain_id].endpoints)
    passed = list(islice(ranked, 1 + drawn(run.claim.fence, count)))
    yield from passed[-1:]
    yield from passed[:-1]
    yield from ranked


def look_again(look: Look, seen: Collection[Seen]) -> tuple[Look, list[Seen]]:
    """Look at the same addresses by another endpoint, the first that tells. Returns its look, and what it shows more.

    Where no other one tells, nothing.
    """
    for witness in endpoints_of(look.run, but=look.first) if seen else ():
        other = replace(look, first=witness, traces={})
        try:
            return other, [each for each in see(other, {one.address: one.at for one in seen}) if each.surplus > 0]
        except ChainError:
            continue
    return look, []


def hear(look: Look, seen: Collection[Seen]) -> dict[bytes, Word]:
    """Ask other endpoints for what the look's own showed, until one bears it out. Returns their word by address.

    Whoever was contradicted by one that another bears out is distrusted; where none bears out what the look's own
    showed, that one is. A chain with a single endpoint has nobody to ask: it is believed.
    """
    client = look.run.ctx.clients[look.run.chain.chain_id]
    if len(client.endpoints) == 1:
        return {each.address: Word.BORNE_OUT for each in seen}
    words = {each.address: Word.NOT_TOLD for each in seen}
    deniers: dict[bytes, list[ChainClient]] = {each.address: [] for each in seen}
    for witness in endpoints_of(look.run, but=look.first):
        for each, balance in _ask(witness, [one for one in seen if words[one.address] is not Word.BORNE_OUT]):
            words[each.address] = Word.BORNE_OUT if balance == each.balance else Word.CONTRADICTED
            if balance != each.balance:
                deniers[each.address].append(witness)
        if all(word is Word.BORNE_OUT for word in words.values()):
            break
    for each in seen:
        doubtful = deniers[each.address] if words[each.address] is Word.BORNE_OUT else [look.first]
        if deniers[each.address]:
            _distrust(doubtful, each)
    return words


def hear_blocks(look: Look, numbers: Collection[int]) -> dict[int, tuple[Header, Word]]:
    """Return the blocks that two endpoints tell, and when they were; of others what was told first, and how it stands.

    Stored times speak for nobody: whoever told of them may tell others now. Who tells another time than two do is
    distrusted. A chain's only endpoint is believed.
    """
    needed = min(2, len(look.run.ctx.clients[look.run.chain.chain_id].endpoints))
    told: dict[int, dict[Header, list[ChainClient]]] = {number: {} for number in numbers}
    shared: dict[int, Header] = {}
    for endpoint in chain([look.first], endpoints_of(look.run, but=look.first)):
        open_ones = sorted(told.keys() - shared.keys())
        if not open_ones:
            break
        for number, header in _headers(endpoint, open_ones).items():
            tellers = told[number].setdefault(header, [])
            tellers.append(endpoint)
            if len(tellers) == needed:
                shared[number] = header
    heard: dict[int, tuple[Header, Word]] = {}
    for number, voices in told.items():
        if number in shared:
            heard[number] = shared[number], Word.BORNE_OUT
        elif voices:
            heard[number] = next(iter(voices)), Word.NOT_TOLD if len(voices) == 1 else Word.CONTRADICTED
        if len(voices) > 1:
            _hold_against(voices, shared.get(number))
    return heard


def endpoints_of(run: Run, *, but: ChainClient | None = None) -> Iterator[ChainClient]:
    """Return a client of each endpoint of the chain that may answer, the best one first. They keep the run's lease."""
    client = run.ctx.clients[run.chain.chain_id].keeping(run.keep_lease)
    heard = [] if but is None else [but.endpoint]
    return others(client, heard=heard, needs=BALANCES, most=len(client.endpoints))


def _ask(witness: ChainClient, seen: Collection[Seen]) -> Iterator[tuple[Seen, int]]:
    """Return what a witness shows of the same addresses after the same blocks, those of which it can say something."""
    at_block: dict[Header, list[Seen]] = defaultdict(list)
    for each in seen:
        at_block[each.at].append(each)
    for header, there in at_block.items():
        try:
            balances = balances_at(witness, [each.address for each in there], block=header)
        except ChainError:  # it is away, behind, or has not the state: that is no word against it
            continue
        yield from zip(there, balances, strict=True)


def _headers(endpoint: ChainClient, numbers: Collection[int]) -> dict[int, Header]:
    try:
        return endpoint.headers(numbers)
    except ChainError:  # what it does not tell is no word against anybody
        return {}


def _hold_against(voices: Mapping[Header, Collection[ChainClient]], shared: Header | None) -> None:
    """Distrust who tells another time of the block that two tell; where no two tell one, say so."""
    for header, tellers in voices.items():
        of_same = [other for other in voices if other.hash == header.hash and other.time != header.time]
        for teller in tellers if of_same else ():
            detail = f"another time of block {header.number} than others"
            if shared in of_same:
                teller.distrust("time", detail)
            elif shared is None:
                teller.dispute("time", detail)


def _distrust(clients: Collection[ChainClient], seen: Seen) -> None:
    for client in clients:
        client.distrust("balance", f"of {checksum_address(seen.address)} after block {seen.at.number}")
