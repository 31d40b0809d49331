"""What the chain says of the rows: its canonical blocks, read again, its balances, and where ranges that were read end.

The chain moves meanwhile: what it contradicts is looked at twice, because the listener may have been about to follow a
reorg, and only what stands both times is told.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.reading import read_blocks
from ctrip.context import Context
from ctrip.database import audit as rows
from ctrip.database import balance_checks, coverage, cursors, holdings
from ctrip.domain.addresses import NATIVE, checksum_address, hex_text
from ctrip.domain.audit import Violation
from ctrip.domain.chains import Chain
from ctrip.domain.inflows import Place
from ctrip.domain.scanning import BlockRange, Cursor, Header, is_linked
from ctrip.domain.transfers import Sighting, Source, Transfer
from ctrip.errors import BlockVanished
from ctrip.runs import issued

BATCH = 500
BLOCKS_AT_ONCE = 50
LOOKS = 3
EDGES = 100

Progress = Callable[[str, int, int], None]
"""Told of long work: what is looked at, how much of it is done, and how much there is (0: nobody counted)."""


def standing_both_times(ctx: Context, client: ChainClient, on_progress: Progress) -> list[Violation]:
    """Return what a chain contradicts in the rows, at two looks one after the other. Raises ChainError."""
    first = _look_at(ctx, client, on_progress)
    if not first:
        return []
    again = {(violation.invariant, violation.ids) for violation in _look_at(ctx, client, on_progress)}
    return [violation for violation in first if (violation.invariant, violation.ids) in again]


def _look_at(ctx: Context, client: ChainClient, on_progress: Progress) -> list[Violation]:
    """Read a chain's canonical blocks again and compare. Starts over where the chain moves; raises BlockVanished."""
    for _ in range(LOOKS - 1):
        try:
            return _compare(ctx, client, on_progress)
        except BlockVanished:
            continue
    return _compare(ctx, client, on_progress)


def _compare(ctx: Context, client: ChainClient, on_progress: Progress) -> list[Violation]:
    with ctx.sessions.begin() as session:
        cursor = cursors.find(session, client.chain.chain_id)
    if cursor is None:
        return []
    return [
        *_check_cursor(client, cursor),
        *_check_edges(ctx, client, cursor),
        *_check_transfers(ctx, client, cursor, on_progress),
        *_check_balances(ctx, client, cursor, on_progress),
        *_check_watched(ctx, client, cursor, on_progress),
    ]


def _check_cursor(client: ChainClient, cursor: Cursor) -> Iterator[Violation]:
    there = client.headers([cursor.read_block]).get(cursor.read_block)
    if there is None or there.hash != cursor.read_hash:
        sentence = f"the cursor of {client.chain.name} stands on a block {cursor.read_block} that is not canonical"
        yield Violation("8 cursor_stands_on_a_canonical_block", (str(cursor.chain_id),), sentence)


def _check_edges(ctx: Context, client: ChainClient, cursor: Cursor) -> Iterator[Violation]:
    """Ask for the last blocks of ranges that were read, the newest and the oldest ones; the cursor's own is known."""
    with ctx.sessions.begin() as session:
        ends = coverage.ends(session, cursor.chain_id, upto=cursor.read_block - 1, most=EDGES)
    there = client.headers(sorted({number for number, _ in ends}))
    for number, last_hash in ends:
        if number not in there or there[number].hash != last_hash:
            sentence = f"a range that was read of {client.chain.name} ends on a block {number} that is not canonical"
            yield Violation("8 range_ends_on_a_canonical_block", (str(cursor.chain_id), str(number)), sentence)


def _check_transfers(ctx: Context, client: ChainClient, cursor: Cursor, on_progress: Progress) -> Iterator[Violation]:
    """Compare every transfer to an issued address, in every block that was read, with the canonical rows."""
    read = cursor.read_block - cursor.start_block
    before: Header | None = None
    for first in range(cursor.start_block + 1, cursor.read_block + 1, BLOCKS_AT_ONCE):
        wanted = BlockRange(first, min(first + BLOCKS_AT_ONCE - 1, cursor.read_block))
        headers, there = _read(ctx, client, wanted)
        if not is_linked(headers, parent_hash=before.hash if before else headers[0].parent_hash):
            raise BlockVanished(f"{client.chain.name} moved while it was audited")
        before = headers[-1]
        with ctx.sessions.begin() as session:
            stored = rows.canonical_transfers(session, cursor.chain_id, first=wanted.first, last=wanted.last)
            unread = coverage.unread(session, cursor.chain_id, tokens=client.chain.assets)
        known = {row.tx_hash for row in stored}
        # What a token that was listed later lacks, a backfill is about to read.
        looked_at = [s for s in there if s.tx_hash in known or not _is_within(s.block_number, unread.get(s.token, []))]
        yield from _differences(client.chain, looked_at, stored)
        yield from _misplaced(client.chain, headers, stored)
        on_progress(f"blocks of {client.chain.name}", wanted.last - cursor.start_block, read)


def _read(ctx: Context, client: ChainClient, wanted: BlockRange) -> tuple[list[Header], list[Sighting]]:
    read = list(read_blocks(client, wanted, issued=issued(ctx)))
    return [header for each in read for header in each.headers], [seen for each in read for seen in each.sightings]


def _differences(chain: Chain, there: Sequence[Sighting], stored: Sequence[Transfer]) -> Iterator[Violation]:
    listed = set(chain.assets)
    on_chain = {(seen.tx_hash, seen.log_index): _content(seen) for seen in there}
    # Coin that a contract sent is in no block's transactions: the balances are compared by themselves.
    told = [(row.tx_hash, row) for row in stored if row.token in listed and row.source is not Source.INTERNAL]
    in_rows = {(tx_hash, row.log_index): _content(row) for tx_hash, row in told if tx_hash is not None}
    for tx_hash, log_index in sorted(on_chain.keys() | in_rows.keys()):
        seen, row = on_chain.get((tx_hash, log_index)), in_rows.get((tx_hash, log_index))
        where = f"log {log_index} of {hex_text(tx_hash)} on {chain.name}"
        if row is None:
            yield Violation("1 transfer_is_stored", (hex_text(tx_hash), str(log_index)), f"{where} is not stored")
        elif seen is None:
            sentence = f"{where} is stored as canonical, and the chain has no such transfer"
            yield Violation("1 credit_is_on_the_chain", (hex_text(tx_hash), str(log_index)), sentence)
        elif seen != row:
            sentence = f"{where} is stored with another block, party, asset or amount than the chain has"
            yield Violation("1 transfer_is_stored_as_it_is", (hex_text(tx_hash), str(log_index)), sentence)


def _misplaced(chain: Chain, headers: Sequence[Header], stored: Sequence[Transfer]) -> Iterator[Violation]:
    """Compare the blocks of coin that a contract sent: when it came says whether it was on time."""
    blocks = {header.number: header for header in headers}
    for row in stored:
        block = blocks[row.block_number]
        if row.source is Source.INTERNAL and (row.block_hash, row.block_time) != (block.hash, block.time):
            sentence = f"{row.id} is stored with another block, or another time of it, than {chain.name} has"
            yield Violation("1 transfer_is_stored_as_it_is", (row.id,), sentence)


def _is_within(number: int, ranges: Iterable[BlockRange]) -> bool:
    return any(each.first <= number <= each.last for each in ranges)


def _content(of: Sighting | Transfer) -> tuple[object, ...]:
    return of.block_number, of.block_hash, of.block_time, of.token, of.sender, of.recipient, of.amount


def _check_balances(ctx: Context, client: ChainClient, cursor: Cursor, on_progress: Progress) -> Iterator[Violation]:
    """Compare what each paid address holds with what it must hold. More is no fault: not each look finds it at once."""
    done, last, listed = 0, b"", set(client.chain.assets)
    while True:
        with ctx.sessions.begin() as session:
            addresses = rows.paid_addresses_after(session, cursor.chain_id, last, limit=BATCH)
            places = [Place(address, cursor.read_block) for address in addresses]
            held = holdings.holdings(session, cursor.chain_id, places)
            moving = holdings.in_motion(session, cursor.chain_id, addresses)
        if not addresses:
            return
        held = [each for each in held if each.token in listed and each.address not in moving]
        balances = client.balances([(h.address, h.token) for h in held], block=cursor.read_block)
        for holding, balance in zip(held, balances, strict=True):
            if balance < holding.amount:
                where = (checksum_address(holding.address), checksum_address(holding.token))
                sentence = f"{where[0]} holds {balance} of {where[1]}, and by the rows {holding.amount}"
                yield Violation("5 balance_covers_the_rows", where, sentence)
        done, last = done + len(addresses), addresses[-1]
        on_progress(f"balances on {client.chain.name}", done, 0)


def _check_watched(ctx: Context, client: ChainClient, cursor: Cursor, on_progress: Progress) -> Iterator[Violation]:
    """Compare the coin of addresses whose payments are open, where the last round of looking at balances began.

    There the rows must explain all of it. Those that sweeps were signed for may have been passed over by that round.
    """
    with ctx.sessions.begin() as session:
        block = balance_checks.find(session, cursor.chain_id).checked_block
        window = cursors.window(session, cursor.chain_id, reorg_window=client.chain.reorg_window)
    read = {header.number: header.time for header in window}
    after: tuple[datetime, str] | None = None
    done = 0
    while block in read:
        with ctx.sessions.begin() as session:
            batch = balance_checks.watched(session, since=read[block], after=after, limit=BATCH)
            still = holdings.untouched(session, cursor.chain_id, [each.address for each in batch])
            known = holdings.coin_at(session, cursor.chain_id, [Place(address, block) for address in sorted(still)])
        balances = client.balances([(address, NATIVE) for address in known], block=block)
        for (address, amount), balance in zip(known.items(), balances, strict=True):
            if balance != amount:
                where = checksum_address(address)
                sentence = f"{where} held {balance} wei after block {block}, and by the rows {amount}"
                yield Violation("1 coin_is_explained", (where,), sentence)
        if not batch:
            return
        done, after = done + len(batch), (batch[-1].expires_at, batch[-1].payment_id)
        on_progress(f"open addresses on {client.chain.name}", done, 0)
