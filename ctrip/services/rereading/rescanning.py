"""An operator's use case: read blocks of a chain again, whole and for every asset, and put right what the rows lack.

    spans of blocks, several in flight, no transaction open │ one short transaction for each: compare, put right, note
    as read

Each span stands by itself, so a crash leaves what was done, and a second call changes nothing of it.
"""

import itertools
from collections.abc import Generator
from dataclasses import dataclass

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.reading import of_any, read_spans
from ctrip.context import Context
from ctrip.database import audit_log, coverage, cursors, loops, rereading
from ctrip.domain.loops import LoopKind
from ctrip.domain.scanning import BlockRange, Cursor, split
from ctrip.errors import BlockVanished, Conflict, InvalidValue, NodeRefused, NotFound
from ctrip.runs import issued
from ctrip.services.rereading.believing import of_our_chain
from ctrip.services.rereading.correcting import all_of, put_right

SPAN = 10
"""Blocks that are read and compared as one; see the listener's own catching up."""


@dataclass(frozen=True)
class Rescanned:
    """How far it came: `next_block` is the first block that was not read again, all before it were."""

    next_block: int
    blocks: int = 0
    transfers_stored: int = 0
    transfers_orphaned: int = 0


def rescan_chain(ctx: Context, name: str, *, first: int, last: int, by: str) -> Generator[Rescanned]:
    """Read the blocks `first` to `last` of a chain again, and tell after each span how far that came.

    They may begin before the first block that was ever read: then the chain counts as read from there.
    Raises NotFound, InvalidValue and Conflict where they cannot be read, and ChainError.
    """
    client = _client(ctx, name)
    wanted = BlockRange(first, last)
    with ctx.sessions.begin() as session:
        cursor = cursors.find(session, client.chain.chain_id)
    _check_range(client, cursor, wanted)
    _check_history(client, wanted)
    with ctx.sessions.begin() as session:
        detail = {"from_block": first, "to_block": last}
        audit_log.add(session, by=by, action="chains.rescan", target=name, detail=detail, new_id=ctx.new_id)
    return _rescan(ctx, client, wanted)


def _rescan(ctx: Context, client: ChainClient, wanted: BlockRange) -> Generator[Rescanned]:
    now = Rescanned(wanted.first)
    # An endpoint that has left the chain is passed over, and the next one is asked.
    pieces = split([wanted], most=SPAN)
    spans = read_spans(client, pieces, issued=issued(ctx), check=of_our_chain(ctx, client))
    for read in itertools.chain.from_iterable(spans):
        corrected = put_right(ctx, client, read, noted=all_of(read))
        # The spans come in their order.
        now = Rescanned(
            next_block=read.headers[-1].number + 1,
            blocks=now.blocks + len(read.headers),
            transfers_stored=now.transfers_stored + len(corrected.stored),
            transfers_orphaned=now.transfers_orphaned + len(corrected.orphaned),
        )
        yield now
    _begin_earlier(ctx, client, wanted)


def _client(ctx: Context, name: str) -> ChainClient:
    chain = ctx.settings.chain_named(name)
    if chain is None or chain.chain_id not in ctx.clients:
        served = ", ".join(each.name for each in ctx.settings.chains if each.enabled)
        raise NotFound(f"there is no enabled chain {name[:60]!r}; there is {served or 'none'}")
    return ctx.clients[chain.chain_id]


def _check_range(client: ChainClient, cursor: Cursor | None, wanted: BlockRange) -> None:
    name = client.chain.name
    if wanted.first < 0 or wanted.first > wanted.last:
        raise InvalidValue(f"there are no blocks from {wanted.first} to {wanted.last}")
    if cursor is None:
        raise Conflict(f"chain {name} was never read: there is nothing to read again")
    if cursor.stopped_reason is not None:
        raise Conflict(f"chain {name} is stopped until an operator looks: {cursor.stopped_reason}")
    if wanted.last > cursor.read_block:
        raise InvalidValue(f"{name} was read up to block {cursor.read_block}: block {wanted.last} comes by itself")


def _check_history(client: ChainClient, wanted: BlockRange) -> None:
    try:
        of_any(client, lambda pinned: pinned.blocks([wanted.first]))
    except (BlockVanished, NodeRefused) as error:
        raise Conflict(
            f"no endpoint of {client.chain.name} that answers has block {wanted.first} any more ({error.detail}); "
            "list one in rpc_urls that keeps the whole history"
        ) from error


def _begin_earlier(ctx: Context, client: ChainClient, wanted: BlockRange) -> None:
    """Let the chain begin before `wanted` where all between that and its old start was read."""
    chain = client.chain
    with ctx.sessions.begin() as session:
        loops.lock(session, loops.loop_name(LoopKind.LISTENER, chain.chain_id))
        cursor = cursors.find(session, chain.chain_id)
        if cursor is None or cursor.start_block < wanted.first:
            return
        before = BlockRange(wanted.first, cursor.start_block)
        if not any(coverage.gaps(session, chain.chain_id, token.address, before) for token in chain.tokens):
            rereading.begin_earlier(session, chain.chain_id, start_block=wanted.first - 1)
