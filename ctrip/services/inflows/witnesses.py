"""Who is asked for balances: each endpoint in its turn. What one shows is asked of the others: it may lie."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import replace
from hashlib import blake2b
from itertools import islice

from ctrip.blockchain.balances import balances_at
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.fleet import BALANCES
from ctrip.blockchain.verifying import Word
from ctrip.domain.addresses import checksum_address
from ctrip.domain.scanning import Header
from ctrip.errors import ChainError, NodeUnavailable
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
            look.run.keep_lease()
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
        for each, balance in _ask(look, witness, [one for one in seen if words[one.address] is not Word.BORNE_OUT]):
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


def endpoints_of(run: Run, *, but: ChainClient | None = None) -> Iterator[ChainClient]:
    """Yield a client of each endpoint of the chain that may answer, the best one first. They keep the run's lease."""
    client, heard = run.ctx.clients[run.chain.chain_id].keeping(run.keep_lease), set[str]()
    if but is not None:
        heard.add(but.endpoint or "")
    while True:
        try:
            one = client.pinned(avoiding=heard, needs=BALANCES)
        except NodeUnavailable:
            return
        heard.add(one.endpoint or "")
        yield one


def _ask(look: Look, witness: ChainClient, seen: Collection[Seen]) -> Iterator[tuple[Seen, int]]:
    """Return what a witness shows of the same addresses after the same blocks, those of which it can say something."""
    at_block: dict[Header, list[Seen]] = defaultdict(list)
    for each in seen:
        at_block[each.at].append(each)
    for header, there in at_block.items():
        try:
            balances = balances_at(witness, [each.address for each in there], block=header)
        except ChainError:  # it is away, behind, or has not the state: that is no word against it
            look.run.keep_lease()
            continue
        yield from zip(there, balances, strict=True)


def _distrust(clients: Collection[ChainClient], seen: Seen) -> None:
    for client in clients:
        client.distrust("balance", f"of {checksum_address(seen.address)} after block {seen.at.number}")
