"""What was read becomes rows: blocks with what they hold, in any order; then the cursor, and all that follows."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from ctrip import metrics
from ctrip.blockchain.reading import BlocksRead, Reading
from ctrip.database import coverage, cursors, finality, moves, payments, refused_transfers, rereading, sweeps, transfers
from ctrip.domain.addresses import hex_text
from ctrip.domain.scanning import BlockRange, Cursor, Header, Move
from ctrip.domain.transfers import Transfer
from ctrip.log import get_logger
from ctrip.runs import Run
from ctrip.services.scanning.verifying import Verdicts

DEADLINES_PER_STEP = 1000
log = get_logger()


def store_blocks(session: Connection, run: Run, blocks: BlocksRead) -> list[Transfer]:
    """Store linked blocks and the transfers in them. They count when the cursor has passed them."""
    if not blocks.headers:
        return []
    chain, first, last = run.chain, blocks.headers[0], blocks.headers[-1]
    found = transfers.store_sightings(session, chain, blocks.sightings, endpoint=blocks.endpoint, new_id=run.ctx.new_id)
    refused_transfers.store(session, chain.chain_id, blocks.failed, endpoint=blocks.endpoint)
    cursors.store_headers(session, chain.chain_id, blocks.headers)
    coverage.extend(
        session,
        chain.chain_id,
        tokens=chain.assets,
        read=BlockRange(first.number, last.number),
        parent_hash=first.parent_hash,
        last_hash=last.hash,
        endpoint=blocks.endpoint,
    )
    return found


def orphan(session: Connection, run: Run, ancestor: Header) -> set[str]:
    """Take back what the blocks above the common ancestor did. Returns the payments concerned."""
    chain_id = run.chain.chain_id
    touched = transfers.orphan_after(session, chain_id, ancestor.number)
    touched |= sweeps.revert_after(session, chain_id, ancestor.number)
    refused_transfers.drop_after(session, chain_id, ancestor.number)
    cursors.drop_headers_after(session, chain_id, ancestor.number)
    coverage.cut(session, chain_id, after=ancestor)
    return touched


def store_verdicts(session: Connection, run: Run, verdicts: Verdicts) -> set[str]:
    """Store what other endpoints said of transfers. Returns the payments of those that are none, and of the true ones.

    Blocks that were read are never read again, so what is there instead of a false transfer is stored with that.
    """
    finality.mark_verified(session, verdicts.borne_out)
    finality.put_back(session, verdicts.not_told)
    if not verdicts.refuted:
        return set()
    transfers.orphan(session, [transfer.id for transfer in verdicts.refuted])
    there = rereading.store_missing(
        session, run.chain, verdicts.there.items(), instead_of=verdicts.refuted, new_id=run.ctx.new_id
    )
    return {transfer.payment_id for transfer in (*verdicts.refuted, *there)}


def move_cursor(
    session: Connection,
    run: Run,
    cursor: Cursor,
    move: Move,
    *,
    touched: Collection[str] = (),
) -> Cursor:
    """Move the cursor on, and let the facts decide for every payment that this touches, those of `touched` too.

    Returns the cursor where it stands then.
    """
    chain, chain_id = run.chain, run.chain.chain_id
    moved = cursors.advance(session, cursor, move, window=chain.reorg_window)
    passed = BlockRange(move.base.number + 1, move.to.number)
    concerned = {*touched, *moves.settle(session, chain_id, passed, most=DEADLINES_PER_STEP)}
    run.delivery_ids += payments.reassess(
        session, concerned, chains=run.ctx.settings.chains_by_id, new_id=run.ctx.new_id
    )
    return moved


def tell(run: Run, blocks: BlocksRead, found: Sequence[Transfer]) -> None:
    """Say what was stored, after its commit."""
    chain, now = run.chain, run.ctx.now()
    for transfer in found:
        metrics.PAYMENT_DETECT.labels(chain=chain.name).observe(max(0.0, (now - transfer.block_time).total_seconds()))
        log.info(
            "transfer_stored",
            chain=chain.name,
            transfer_id=transfer.id,
            payment_id=transfer.payment_id,
            block=transfer.block_number,
            is_own=transfer.is_own,
        )
    for upgrade in blocks.upgrades:
        token = chain.token_at(upgrade.token)
        metrics.TOKEN_UPGRADES.labels(chain=chain.name, token="" if token is None else token.symbol).inc()
        where = {"block": upgrade.block_number, "tx_hash": upgrade.tx_hash}
        log.error("token_upgraded", chain=chain.name, token=hex_text(upgrade.token), **where)


def tell_reorg(run: Run, cursor: Cursor, reading: Reading) -> None:
    """Say that blocks were taken back."""
    metrics.REORGS.labels(chain=run.chain.name).inc()
    log.warning("reorg_followed", chain=run.chain.name, ancestor=reading.base.number, read_block=cursor.read_block)
