"""Reading a chain: blocks whole, at its head one step after the other, far behind it several spans at once.

Every way to read ends in `_read`: one answer of one endpoint, matched, borne out by receipts, or not believed.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from ctrip.blockchain.arriving import as_arrived
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import Block
from ctrip.blockchain.doubting import bear_out, check_empty, checked_or_distrusted
from ctrip.blockchain.forks import check_lacking, check_reorg
from ctrip.blockchain.matching import Issued, Upgrade, sightings, upgrades
from ctrip.blockchain.tags import tags_told
from ctrip.domain.addresses import COIN_LOGGER
from ctrip.domain.finality import Finality
from ctrip.domain.scanning import BlockRange, Header, Tagged, common_ancestor, is_linked
from ctrip.domain.transfers import Sighting
from ctrip.errors import BlockVanished, ChainError, NodeRefused, NodeUnavailable, ReorgTooDeep

BLOCKS_PER_STEP = 20
IN_FLIGHT = 10
"""How many spans are read at once: enough to hide 50 ms of latency, few enough to hold what they tell in memory."""
AHEAD = 3 * IN_FLIGHT
"""How many spans are read or wait for one before them."""

V = TypeVar("V")
_NO_TAGS: Mapping[Finality, Tagged | None] = {}


@dataclass(frozen=True)
class BlocksRead:
    """Whole blocks as one endpoint told them, in order, and what they hold for issued addresses.

    `failed` are those sightings whose transactions failed: coin that looked like money and did not move.
    """

    headers: tuple[Header, ...]
    sightings: tuple[Sighting, ...]
    upgrades: tuple[Upgrade, ...]
    endpoint: str
    failed: tuple[Sighting, ...] = ()

    def followed_by(self, later: "BlocksRead") -> "BlocksRead | None":
        """Return these blocks and the later ones as one, where they link and one endpoint told them."""
        if later.endpoint != self.endpoint or later.headers[0].parent_hash != self.headers[-1].hash:
            return None
        names = ("headers", "sightings", "upgrades", "failed")
        return replace(self, **{name: getattr(self, name) + getattr(later, name) for name in names})


Check = Callable[[ChainClient, BlocksRead], None]
"""Raises a ChainError where what one endpoint told of blocks is not to be believed: then the next one is asked."""


def believe(*_: object) -> None:
    """Check nothing."""


@dataclass(frozen=True)
class Reading:
    """What one step read. `base` is the block it continues: the newest stored one, or the common ancestor.

    `tags` are the newest of our blocks that the chain calls safe or finalized, where those have moved on: of several
    endpoints two say so (see `tags_told`).
    """

    base: Header
    is_reorg: bool
    head_block: int
    blocks: BlocksRead
    tags: dict[Finality, Header]

    @property
    def tip(self) -> Header:
        """The newest block that was read."""
        return self.blocks.headers[-1] if self.blocks.headers else self.base


def read_step(
    client: ChainClient,
    newest: Header,
    *,
    window: Callable[[], Sequence[Header]],
    expected: int,
    tags: Mapping[Finality, Tagged | None] = _NO_TAGS,
    issued: Issued,
) -> Reading:
    """Read the blocks after the `newest` that is stored, BLOCKS_PER_STEP at the most.

    `window` tells the stored headers, oldest first, where something may be gone. Head and the next
    block, or as many as are `expected`, come with one request, their logs with a second one; all of them from one
    endpoint, and from another where that one does not tell them.
    Raises ReorgTooDeep, and BlockVanished where the chain moved while it was read.
    """
    most = min(max(expected, 1), BLOCKS_PER_STEP)

    def step(pinned: ChainClient) -> Reading:
        base = newest
        head, blocks = pinned.head_and_blocks(_after(base, most))
        if not _continues(blocks, base) or (head.number <= base.number and _contradicts(head, base, window)):
            base = _ancestor(client, pinned, window(), head=head)
            head, blocks = pinned.head_and_blocks(_after(base, BLOCKS_PER_STEP))
            if not _continues(blocks, base):
                raise BlockVanished(f"{client.chain.name} moved while the blocks after {base.number} were read")
        if not blocks:
            check_lacking(pinned, base.number + 1)
        read = _read(client, pinned, blocks, issued=issued)
        return Reading(
            base=base,
            is_reorg=base != newest,
            head_block=max([head.number, base.number, *(block.header.number for block in blocks)]),
            blocks=read,
            tags=tags_told(client, pinned, tags, read=(base, *read.headers), window=window),
        )

    return of_any(client, step)


def read_blocks(
    client: ChainClient, numbers: Iterable[int], *, issued: Issued, check: Check = believe
) -> Iterator[BlocksRead]:
    """Read single blocks whole, wherever they stand, BLOCKS_PER_STEP at a time. Raises BlockVanished."""
    rest = iter(sorted(numbers))
    while now := list(islice(rest, BLOCKS_PER_STEP)):
        yield of_any(client, partial(_read_numbers, client, now, issued, check))


def read_spans(
    client: ChainClient, wanted: Iterable[BlockRange], *, issued: Issued, check: Check = believe
) -> Iterator[list[BlocksRead]]:
    """Read spans of linked blocks, IN_FLIGHT at once, and return those that are done, in their order.

    Ends early where the caller leaves off. The first span that no endpoint would tell ends it too: its error is raised
    when all before it were returned. The lease is kept while it waits, and by no other thread.
    """
    rest, leaseless = iter(wanted), client.keeping(lambda: None)
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="read") as threads:
        flying: deque[Future[BlocksRead]] = deque()
        try:
            while True:
                for span in islice(rest, max(0, client.at_once(AHEAD) - len(flying))):
                    work = partial(_read_span, leaseless, span, issued, check)
                    flying.append(threads.submit(of_any, leaseless, work))
                if not flying:
                    return
                # Several are stored at once, which costs little more than one, while others are read.
                wait(islice(flying, IN_FLIGHT), timeout=1)
                client.keep_lease()
                yield from _told(flying)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def joined(read: Iterable[BlocksRead]) -> list[BlocksRead]:
    """Put together what links and one endpoint told: it is stored as one."""
    found: list[BlocksRead] = []
    for each in read:
        whole = found[-1].followed_by(each) if found else None
        found[-1:] = [*found[-1:], each] if whole is None else [whole]
    return found


def _told(flying: deque[Future[BlocksRead]]) -> Iterator[list[BlocksRead]]:
    """Take the first spans that are done, and then raise the error of the first one that failed."""
    told: list[BlocksRead] = []
    while flying and len(told) < IN_FLIGHT and flying[0].done() and flying[0].exception() is None:
        told.append(flying.popleft().result())
    if told:
        yield told
    elif flying and flying[0].done():
        flying[0].result()


def _read_numbers(
    client: ChainClient, numbers: Sequence[int], issued: Issued, check: Check, pinned: ChainClient
) -> BlocksRead:
    read = _read(client, pinned, pinned.blocks(numbers), issued=issued)
    check(pinned, read)
    return read


def _read_span(client: ChainClient, span: BlockRange, issued: Issued, check: Check, pinned: ChainClient) -> BlocksRead:
    try:
        blocks = pinned.blocks(span)
    except BlockVanished:
        check_lacking(pinned, span.last)
        raise
    headers = [block.header for block in blocks]
    if not is_linked(headers[1:], parent_hash=headers[0].hash):
        raise BlockVanished(f"{client.chain.name} moved while its blocks from {span.first} were read")
    read = _read(client, pinned, blocks, issued=issued)
    check(pinned, read)
    return read


def of_any(client: ChainClient, work: Callable[[ChainClient], V]) -> V:
    """Do some work with one endpoint and, where that does not tell what it needs, with the next.

    An endpoint may have no old blocks, refuse a method, or be of another mind than the rest. Raises what the first one
    raised; and ReorgTooDeep at once, which all have been asked about.
    """
    fault: ChainError | None = None
    failed: set[str] = set()
    while True:
        try:
            pinned = client.pinned(avoiding=failed)
        except NodeUnavailable as error:
            raise fault or error from None
        try:
            return work(pinned)
        except (BlockVanished, NodeRefused, NodeUnavailable) as error:
            fault = fault or error
            if pinned.endpoint is None or len(failed) + 1 >= len(client.endpoints):
                raise fault from None
            failed.add(pinned.endpoint)


def _read(client: ChainClient, pinned: ChainClient, blocks: Sequence[Block], *, issued: Issued) -> BlocksRead:
    """Ask for the logs of blocks, match them, and bear out what concerns us."""
    headers = [block.header for block in blocks]
    chain = client.chain
    tokens = list(chain.contracts)
    if any(chain.logs_coin(header.number) for header in headers):
        tokens.append(COIN_LOGGER)
    logs = pinned.logs(headers, tokens=tokens)
    whole = [
        checked_or_distrusted(pinned, block, found, tokens=tokens, logs_coin=chain.logs_coin(block.header.number))
        for block, found in zip(blocks, logs, strict=True)
    ]
    check_empty(client, pinned, whole, tokens=tokens)
    borne_out, failed = bear_out(client, pinned, sightings(whole, issued=issued))
    return BlocksRead(
        headers=tuple(headers),
        sightings=tuple(as_arrived(pinned, borne_out)),
        upgrades=tuple(upgrades(whole)),
        endpoint=pinned.endpoint or "",
        failed=tuple(failed),
    )


def _after(base: Header, most: int) -> range:
    return range(base.number + 1, base.number + 1 + most)


def _continues(blocks: Sequence[Block], base: Header) -> bool:
    return is_linked([block.header for block in blocks], parent_hash=base.hash)


def _contradicts(head: Header, newest: Header, window: Callable[[], Sequence[Header]]) -> bool:
    """True where the node's head stands at a height that was read, and is another block.

    A head below ours on our own chain is a node that lags; nothing follows from it.
    """
    if head.number == newest.number:
        return head.hash != newest.hash
    return any(header.number == head.number and header.hash != head.hash for header in window())


def _ancestor(client: ChainClient, pinned: ChainClient, stored: Sequence[Header], *, head: Header) -> Header:
    """Return the newest stored block that is still canonical, when no other endpoint says that more of them are."""
    canonical = pinned.headers(header.number for header in stored)
    ancestor = common_ancestor(stored, {number: header.hash for number, header in canonical.items()})
    lost = [header for header in stored if ancestor is None or header.number > ancestor.number]
    if lost:
        instead = canonical.get(lost[0].number)
        is_too_deep = ancestor is None or len(lost) > client.chain.reorg_window
        check_reorg(client, pinned, lost=lost[0], instead=instead, head=head, is_too_deep=is_too_deep)
    if ancestor is None:
        raise ReorgTooDeep(
            f"none of the stored blocks {stored[0].number} to {stored[-1].number} of {client.chain.name} "
            f"is canonical any more; its head is block {head.number}"
        )
    return ancestor
