"""An operator's use case: let a chain that was stopped by a reorg too deep be read again from a block.

    the node's headers up to the block, no transaction open │ one transaction: overtake the listener, take back what
    stands above the block, headers, cursor, finality; assess every payment touched

The listener then reads on from the block after it. Money that the new chain has too comes back as it is read.
"""

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database import (
    audit_log,
    coverage,
    cursors,
    finality,
    payments,
    refused_transfers,
    restarts,
    sweeps,
    transfers,
)
from ctrip.domain.scanning import Cursor, Header, is_linked
from ctrip.errors import BlockVanished, Conflict, InvalidValue, NotFound
from ctrip.log import get_logger

log = get_logger()


def resume_chain(ctx: Context, name: str, *, from_block: int, by: str) -> list[str]:
    """Read a stopped chain on after `from_block`, the last block below the fork. Returns the ids of due deliveries.

    Raises NotFound where the chain is not configured, enabled and read, Conflict where it is not stopped (any more),
    InvalidValue where the block would leave others unread or is not below the fork, and ChainError.
    """
    client = _client(ctx, name)
    chain = client.chain
    with ctx.sessions.begin() as session:
        cursor = cursors.find(session, chain.chain_id)
        trace = restarts.newest_trace(session, chain.chain_id, up_to=from_block)
    cursor = _stopped(cursor, name=name, from_block=from_block)
    head_block, headers = _read(client, from_block)
    _check_fork(client, trace, headers=headers)
    with ctx.sessions.begin() as session:
        restarts.overtake(session, chain.chain_id)
        if not restarts.set_back(session, cursor, headers=headers, head_block=head_block):
            raise Conflict(f"chain {name} was started again meanwhile")
        coverage.cut(session, chain.chain_id, after=headers[-1])
        refused_transfers.drop_after(session, chain.chain_id, from_block)
        touched = transfers.orphan_after(session, chain.chain_id, from_block)
        touched |= sweeps.revert_after(session, chain.chain_id, from_block)
        touched |= finality.settle_finality(session, chain.chain_id)
        delivery_ids = payments.reassess(session, touched, chains=ctx.settings.chains_by_id, new_id=ctx.new_id)
        detail = {"from_block": from_block, "was_read_to": cursor.read_block}
        audit_log.add(session, by=by, action="chains.resume", target=name, detail=detail, new_id=ctx.new_id)
    log.warning("chain_resumed", chain=name, from_block=from_block, was_read_to=cursor.read_block)
    return delivery_ids


def _client(ctx: Context, name: str) -> ChainClient:
    chain = ctx.settings.chain_named(name)
    if chain is None or chain.chain_id not in ctx.clients:
        raise NotFound(f"there is no enabled chain {name[:60]!r}")
    return ctx.clients[chain.chain_id]


def _stopped(cursor: Cursor | None, *, name: str, from_block: int) -> Cursor:
    if cursor is None or cursor.stopped_reason is None:
        raise Conflict(f"chain {name} is not stopped: there is nothing to resume")
    if from_block > cursor.read_block:
        raise InvalidValue(
            f"block {from_block} was never read: money in blocks after {cursor.read_block} would be lost"
        )
    return cursor


def _read(client: ChainClient, from_block: int) -> tuple[int, list[Header]]:
    """Return the head's number, and the canonical headers of the reorg window up to `from_block`, oldest first."""
    head = client.head()
    if not 0 <= from_block <= head.number:
        raise InvalidValue(f"there is no block {from_block} of {client.chain.name}: its head is block {head.number}")
    wanted = range(max(0, from_block - client.chain.reorg_window), from_block + 1)
    found = client.headers(wanted)
    headers = [found[number] for number in wanted if number in found]
    if len(headers) != len(wanted) or not is_linked(headers[1:], parent_hash=headers[0].hash):
        raise BlockVanished(f"the headers of {client.chain.name} up to block {from_block} are not one chain; try again")
    return head.number, headers


def _check_fork(client: ChainClient, trace: tuple[int, bytes] | None, *, headers: list[Header]) -> None:
    """Raise InvalidValue where what stands at or below the block was in blocks that the chain does not have any more.

    The blocks that took their places would never be read.
    """
    if trace is None:
        return
    number, stored_hash = trace
    known = {header.number: header for header in headers}
    there = known.get(number) or client.headers([number]).get(number)
    if there is None or there.hash != stored_hash:
        raise InvalidValue(
            f"block {headers[-1].number} is not below the fork: block {number}, as it was read, "
            f"is not canonical on {client.chain.name}; resume from a block below that"
        )
