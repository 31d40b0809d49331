"""Old blocks: which of them a moment falls into, which may hold what is looked for, and whose word is taken for them.

What an endpoint tells of old blocks is looked at where the chain is known, at a block that the listener has read:

another endpoint on that chain has the block too                      believed
none has, and the one that told of it has left that chain             not believed
none has, and another one on that chain has another block there       not believed: nobody knows who is right
none has, and no other one on that chain knows that block             believed: many nodes keep no old blocks
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import to_bytes, to_int
from ctrip.blockchain.forks import IsYoung, check_shared
from ctrip.blockchain.matching import Issued, is_transfer
from ctrip.blockchain.others import others
from ctrip.blockchain.ranges import Piece, Question, RangeLogJson
from ctrip.blockchain.reading import BlocksRead, believe, of_any
from ctrip.domain.addresses import ADDRESS_BYTES
from ctrip.domain.forks import Voice, voice_of
from ctrip.domain.scanning import BlockRange, Header
from ctrip.errors import BlockVanished, NodeRefused, NodeUnavailable

CheckHeaders = Callable[[ChainClient, Sequence[Header]], None]
"""Raises a ChainError where the old headers that one endpoint told, in their order, are not to be believed."""


@dataclass(frozen=True)
class Hits:
    """The blocks among `blocks` that may hold what is looked for, as `endpoint` tells; the others do not hold it.

    `is_borne_out` where another endpoint was asked as well, or the chain has no other. `told` is how many transfers of
    `tokens` any of those that were asked told of, at the most, by the hashes of their blocks.
    """

    blocks: BlockRange
    numbers: tuple[int, ...]
    endpoint: str
    is_borne_out: bool = True
    tokens: frozenset[bytes] = frozenset()
    told: Mapping[bytes, int] = field(default_factory=dict)

    def with_that_of(self, other: "Hits") -> "Hits":
        """Return these with what another endpoint tells of the same blocks."""
        told = {block: max(self.told.get(block, 0), other.told.get(block, 0)) for block in {*self.told, *other.told}}
        numbers = tuple(sorted({*self.numbers, *other.numbers}))
        return replace(self, numbers=numbers, told=told, is_borne_out=True)

    def check_borne_out(self) -> None:
        """Raise NodeUnavailable where one endpoint of several told of them alone."""
        if not self.is_borne_out:
            where = f"blocks {self.blocks.first} to {self.blocks.last}"
            raise NodeUnavailable(f"{where} were looked through at {self.endpoint} alone: no other endpoint answers")

    def check(self, pinned: ChainClient, read: BlocksRead) -> None:
        """Raise NodeUnavailable where a reading of such blocks shows fewer transfers than were told of."""
        shown = Counter(each.block_hash for each in read.sightings if each.token in self.tokens)
        for header in read.headers:
            if shown[header.hash] < self.told.get(header.hash, 0):
                detail = f"fewer transfers in block {header.number} than were told of when its logs were looked for"
                pinned.dispute("logs", detail)
                raise NodeUnavailable(f"{pinned.endpoint} told of {detail}")


def check_lineage(client: ChainClient, pinned: ChainClient, header: Header, *, read: Header) -> None:
    """Raise NodeUnavailable unless an old block that `pinned` told of is to be believed.

    `read` is a later block, which the listener has read and no reorg may take.
    """
    denied = 0
    for other in others(client, heard=[pinned.endpoint]):
        try:
            there = other.headers([header.number, read.number])
        except (NodeRefused, NodeUnavailable):
            continue
        if voice_of(there.get(read.number), lost=read) is Voice.GONE:
            continue
        voice = voice_of(there.get(header.number), lost=header)
        if voice is Voice.KEPT:
            return
        denied += voice is Voice.GONE
    if voice_of(pinned.headers([read.number]).get(read.number), lost=read) is Voice.GONE:
        detail = f"another block {read.number} than was read"
        pinned.distrust("fork", detail)
    elif denied:
        detail = f"a block {header.number} that {denied} other endpoint(s) have another one for"
        pinned.dispute("fork", detail)
    else:
        return
    raise NodeUnavailable(f"{pinned.endpoint} told of {detail}")


def count_agreeing(client: ChainClient, headers: Sequence[Header], *, told_by: str) -> int:
    """Return how many endpoints besides the one that told of some old blocks have the same ones.

    Raises NodeUnavailable where one has another block: nobody knows who is right. One that lacks them says nothing.
    """
    count = 0
    for other in others(client, heard=[told_by], most=len(client.endpoints)):
        try:
            there = other.headers([header.number for header in headers])
        except (NodeRefused, NodeUnavailable):
            continue
        for header in headers:
            if voice_of(there.get(header.number), lost=header) is Voice.GONE:
                detail = f"another block {header.number} than {told_by} has"
                other.dispute("fork", detail)
                raise NodeUnavailable(f"{other.endpoint} told of {detail}")
        count += len(there) == len(headers)
    return count


def old_headers(client: ChainClient, numbers: Sequence[int], *, check: CheckHeaders = believe) -> list[Header]:
    """Return the headers of old blocks, all from one endpoint: not every node has its whole history.

    Raises BlockVanished where none of those that answer has them all.
    """

    def told_by(pinned: ChainClient) -> list[Header]:
        found = _headers(pinned, numbers)
        check(pinned, found)
        return found

    return of_any(client, told_by)


def first_block_since(
    client: ChainClient, moment: datetime, *, low: int, high: int, check: CheckHeaders = believe
) -> int:
    """Find the first of the blocks `low` to `high` that is not older than `moment`; `high` + 1 where all are older.

    Raises BlockVanished where no endpoint that answers has one of them, and NodeUnavailable where endpoints tell other
    times of the blocks around that moment, or one of several answers alone.
    """

    def told_by(pinned: ChainClient) -> int:
        # Who keeps no old blocks cannot tell, however long one waits; who is away may tell another time.
        ask = partial(first_block_told, client, pinned, moment, low=low, high=high, check=check)
        return ask(is_young=lambda *_: _is_alone(client, pinned))

    return of_any(client, told_by)


def first_block_told(
    client: ChainClient,
    pinned: ChainClient,
    moment: datetime,
    *,
    low: int,
    high: int,
    is_young: IsYoung,
    check: CheckHeaders = believe,
) -> int:
    """Find it by the word of `pinned`. Raises as `first_block_since` and `check_shared` do.

    The last block before the moment and the first one after it are all that counts, and what others are asked for.
    """
    first, around = search(pinned, moment, low=low, high=high)
    if around:
        check(pinned, around)
        check_shared(client, around, told_by=pinned.endpoint or "", is_young=is_young)
    return first


def search(pinned: ChainClient, moment: datetime, *, low: int, high: int) -> tuple[int, list[Header]]:
    """Find it by the word of `pinned` alone, by halves: times only grow.

    Returns it with the headers next to the moment, before and after it, as far as they are in that range. Raises
    BlockVanished where `pinned` lacks one of the blocks that it takes.
    """
    told: dict[int, Header] = {}
    end = high + 1
    while low < end:
        middle = (low + end) // 2
        (told[middle],) = _headers(pinned, [middle])
        low, end = (middle + 1, end) if told[middle].time < moment else (low, middle)
    return low, [told[number] for number in (low - 1, low) if number in told]


def hits_in(
    client: ChainClient,
    span: BlockRange,
    *,
    tokens: Sequence[bytes],
    recipients: Sequence[bytes] | None,
    issued: Issued,
    check: CheckHeaders = believe,
) -> Iterator[Hits]:
    """Look for Transfers of `tokens` to issued addresses in `span`, piece by piece, gapless and in order.

    The node looks for `recipients`, where they are given; else `issued` is asked for those of all Transfers. Where the
    chain has other endpoints, one of them is asked as well: no bloom filter is at hand that would show what is left
    out. Raises NodeRefused, NodeUnavailable and BlockVanished.
    """
    if not tokens:
        yield Hits(span, (), "")
        return
    # Of what takes a fee or rebases, less may have arrived than the logs say, or nothing.
    uncertain = {each.address for each in client.chain.tokens if each.fee_on_transfer or each.rebasing}
    look = _Look(Question(tokens, recipients), frozenset(tokens) - uncertain, issued, check)
    first = span.first
    while first <= span.last:
        here = of_any(client, partial(look.at, blocks=BlockRange(first, span.last)))
        elsewhere = _elsewhere(client, here, partial(look.at, blocks=here.blocks, is_whole=True))
        yield here if elsewhere is None else here.with_that_of(elsewhere)
        first = here.blocks.last + 1


def _headers(pinned: ChainClient, numbers: Sequence[int]) -> list[Header]:
    """Return headers of old blocks from one endpoint. Raises BlockVanished where it has not all of them."""
    found = pinned.headers(numbers)
    for number in numbers:
        if number not in found:
            lacking = f"no endpoint of {pinned.chain.name} that answers has block {number}"
            raise BlockVanished(f"{lacking}; a node that keeps its whole history has")
    return [found[number] for number in numbers]


def _is_alone(client: ChainClient, pinned: ChainClient) -> bool:
    """Return True where no other endpoint answers, whatever it keeps."""
    for other in others(client, heard=[pinned.endpoint]):
        try:
            other.head()
        except (NodeRefused, NodeUnavailable):
            continue
        return False
    return True


@dataclass(frozen=True)
class _Look:
    """What is looked for: `counted` tokens are those whose logs say how much arrived."""

    question: Question
    counted: frozenset[bytes]
    issued: Issued
    check: CheckHeaders

    def at(self, pinned: ChainClient, *, blocks: BlockRange, is_whole: bool = False) -> Hits:
        """Return what an endpoint tells of the first of these blocks, as many as it tells at once, or of all of them.

        Raises a ChainError where it is not on the chain that was read, or what it tells cannot be decoded.
        """
        numbers, told = set[int](), Counter[bytes]()
        asked = self.question
        # One by one: each may be large, and no log of them is kept.
        for piece in pinned.logs_in(blocks, tokens=asked.tokens, recipients=asked.recipients):
            hits = _ours(piece, self.issued)
            numbers |= {to_int(log.block_number) for log in hits}
            told.update(_places(hits, self.counted))
            if not is_whole:
                blocks = piece.blocks
                break
        self.check(pinned, _headers(pinned, [blocks.last]))
        is_alone = len(pinned.endpoints) == 1
        return Hits(blocks, tuple(sorted(numbers)), pinned.endpoint or "", is_alone, self.counted, told)


def _elsewhere(client: ChainClient, here: Hits, look: Callable[[ChainClient], Hits]) -> Hits | None:
    """Return what another endpoint tells of the same blocks; None where no other one answers that is to be believed."""
    for other in others(client, heard=[here.endpoint], most=len(client.endpoints)):
        try:
            return look(other)
        except (BlockVanished, NodeRefused, NodeUnavailable):
            continue
    return None


def _ours(piece: Piece, issued: Issued) -> list[RangeLogJson]:
    transfers = [log for log in piece.logs if is_transfer(log) and not log.removed]
    recipients = {log.topics[2]: to_bytes(log.topics[2])[-ADDRESS_BYTES:] for log in transfers}
    ours = issued(set(recipients.values())) if recipients else set()
    return [log for log in transfers if recipients[log.topics[2]] in ours]


def _places(hits: Sequence[RangeLogJson], counted: Collection[bytes]) -> list[bytes]:
    """Return the block's hash of each transfer of such tokens.

    Some nodes tell a log twice, and others count the logs of each transaction by themselves.
    """
    once = {(log.block_hash, log.transaction_hash, log.log_index) for log in hits if to_bytes(log.address) in counted}
    return [to_bytes(block_hash) for block_hash, _, _ in once]
