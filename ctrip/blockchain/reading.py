"""Reading a chain: blocks whole, at its head one step after the other, far behind it several spans at once.

Every way to read ends in `_read`: one answer of one endpoint, matched, borne out by receipts, or not believed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

from ctrip.blockchain.arriving import as_arrived
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import Block
from ctrip.blockchain.doubting import bear_out, check_empty, check_reorg
from ctrip.blockchain.matching import Issued, Upgrade, checked, sightings, upgrades
from ctrip.domain.addresses import COIN_LOGGER
from ctrip.domain.finality import Finality
from ctrip.domain.scanning import BlockRange, Header, common_ancestor, is_linked
from ctrip.domain.transfers import Sighting
from ctrip.errors import BlockVanished, ChainError, NodeUnavailable, ReorgTooDeep

BLOCKS_PER_STEP = 20
IN_FLIGHT = 12
"""How many spans are read at once: enough to hide 50 ms of latency, few enough to hold their answers in memory."""


@dataclass(frozen=True)
class BlocksRead:
    """Whole blocks as one endpoint told them, in order, and what they hold for issued addresses."""

    headers: tuple[Header, ...]
    sightings: tuple[Sighting, ...]
    upgrades: tuple[Upgrade, ...]
    endpoint: str


@dataclass(frozen=True)
class Reading:
    """What one step read. `base` is the block it continues: the newest stored one, or the common ancestor.

    `tags` are the blocks that the endpoint calls safe or finalized, of those that were asked for.
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
    tags: Sequence[Finality] = (),
    issued: Issued,
    keep_lease: Callable[[], None],
) -> Reading:
    """Read the blocks after the `newest` that is stored, BLOCKS_PER_STEP at the most.

    `window` tells the stored headers of the reorg window, oldest first, where something may be gone. Head and the next
    block, or as many as are `expected`, come with one request, their logs with a second one.
    `keep_lease` is called between requests, and may raise.
    Raises ReorgTooDeep, and BlockVanished where the chain moved while it was read.
    """
    pinned, base = client.pinned(), newest
    most = min(max(expected, 1), BLOCKS_PER_STEP)
    head, blocks = pinned.head_and_blocks(_after(base, most))
    keep_lease()
    if not _continues(blocks, base) or (head.number <= base.number and _contradicts(head, base, window)):
        base = _ancestor(client, pinned, window(), head=head)
        keep_lease()
        head, blocks = pinned.head_and_blocks(_after(base, BLOCKS_PER_STEP))
        if not _continues(blocks, base):
            raise BlockVanished(f"{client.chain.name} moved while the blocks after {base.number} were read")
    read = _read(client, pinned, blocks, issued=issued)
    keep_lease()
    return Reading(
        base=base,
        is_reorg=base != newest,
        head_block=max([head.number, base.number, *(block.header.number for block in blocks)]),
        blocks=read,
        tags={tag: header for tag in tags if (header := pinned.tagged(tag)) is not None},
    )


def read_blocks(
    client: ChainClient, numbers: Iterable[int], *, issued: Issued, keep_lease: Callable[[], None]
) -> Iterator[BlocksRead]:
    """Read single blocks whole, wherever they stand, BLOCKS_PER_STEP at a time. Raises BlockVanished."""
    rest = iter(sorted(numbers))
    while now := list(islice(rest, BLOCKS_PER_STEP)):
        pinned = client.pinned()
        yield _read(client, pinned, pinned.blocks(now), issued=issued)
        keep_lease()


def read_spans(
    client: ChainClient, wanted: Iterable[BlockRange], *, issued: Issued, keep_lease: Callable[[], None]
) -> Iterator[list[BlocksRead]]:
    """Read spans of linked blocks, IN_FLIGHT at once, and return those that are done, whatever their order.

    Ends early where the caller leaves off. The first span that no endpoint would tell ends it too, when those in flight
    are done; its error is raised then. `keep_lease` is called while it waits, and may raise.
    """
    rest, faults = iter(wanted), list[ChainError]()
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="read") as threads:
        flying: set[Future[BlocksRead]] = set()
        try:
            while True:
                while not faults and len(flying) < IN_FLIGHT and (span := next(rest, None)) is not None:
                    flying.add(threads.submit(_read_span, client, span, issued))
                if not flying:
                    break
                done, flying = wait(flying, timeout=1, return_when=FIRST_COMPLETED)
                keep_lease()
                faults += [fault for each in done if isinstance(fault := each.exception(), ChainError)]
                if told := [each.result() for each in done if not isinstance(each.exception(), ChainError)]:
                    yield told
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    for fault in faults[:1]:
        raise fault


def _read_span(client: ChainClient, span: BlockRange, issued: Issued) -> BlocksRead:
    """Read a span through one endpoint, and through another where that one fails."""
    failed: set[str] = set()
    while True:
        try:
            pinned = client.pinned(avoiding=failed)
            blocks = pinned.blocks(span)
            headers = [block.header for block in blocks]
            if not is_linked(headers[1:], parent_hash=headers[0].hash):
                raise BlockVanished(f"{client.chain.name} moved while its blocks from {span.first} were read")
            return _read(client, pinned, blocks, issued=issued)
        except NodeUnavailable:
            if pinned.endpoint is None or len(failed) + 1 >= len(client.endpoints):
                raise
            failed.add(pinned.endpoint)


def _read(client: ChainClient, pinned: ChainClient, blocks: Sequence[Block], *, issued: Issued) -> BlocksRead:
    """Ask for the logs of blocks, match them, and bear out what concerns us."""
    headers = [block.header for block in blocks]
    chain = client.chain
    tokens = [token.address for token in chain.tokens if not token.is_native]
    if any(chain.logs_coin(header.number) for header in headers):
        tokens.append(COIN_LOGGER)
    logs = pinned.logs(headers, tokens=tokens)
    whole = [
        checked(block, found, logs_coin=chain.logs_coin(block.header.number))
        for block, found in zip(blocks, logs, strict=True)
    ]
    check_empty(client, pinned, whole, tokens=tokens)
    borne_out = bear_out(pinned, sightings(whole, issued=issued))
    return BlocksRead(
        headers=tuple(headers),
        sightings=tuple(as_arrived(pinned, borne_out)),
        upgrades=tuple(upgrades(whole)),
        endpoint=pinned.endpoint or "",
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
        check_reorg(client, pinned, lost=lost[0], head=head)
    if ancestor is None:
        raise ReorgTooDeep(
            f"none of the stored blocks {stored[0].number} to {stored[-1].number} of {client.chain.name} "
            f"is canonical any more; its head is block {head.number}"
        )
    return ancestor
