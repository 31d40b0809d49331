"""The use case of coin that no transaction explains: look at balances, and store as transfers what the rows lack.

    claim the loop · whose balances, after which blocks │ ask one endpoint, each in its turn, or the next where it does
    not tell, no transaction open │ what must they hold?
    more than that: find the block, trace it, ask another endpoint · no more at a deadline: another endpoint looks too │
    one transaction: hold the fence, lock the listener's loop, check again that blocks are canonical and rows as they
    were; store, assess, release

The block is the one that the listener read last, by its hash: the rows are whole up to it, and a reorg that takes it
takes what was inferred there. At a deadline it is the last block before it: what had come by then is on time. Before
it is final, two endpoints show that it is there and tell when its block was: the stored time may be one alone's. A
crash before the commit leaves the round where it was.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from ctrip import metrics
from ctrip.blockchain.balances import calls_for, most_at_once
from ctrip.blockchain.verifying import Word
from ctrip.context import Context
from ctrip.database import balance_checks, cursors, finality, holdings, inflows, loops, payments, transfers
from ctrip.database.balance_checks import Rounds
from ctrip.database.inflows import Inflow
from ctrip.domain.addresses import checksum_address
from ctrip.domain.inflows import Place
from ctrip.domain.loops import LoopKind, Tick, period
from ctrip.domain.scanning import Header
from ctrip.domain.transfers import Transfer
from ctrip.errors import ChainError, NodeRefused, NodeUnavailable
from ctrip.log import get_logger
from ctrip.runs import Run, run_loop
from ctrip.services.inflows.deadlines import by_deadlines
from ctrip.services.inflows.looking import Look, Seen, found_in, see, traced
from ctrip.services.inflows.rounds import Turn, next_turn, pace
from ctrip.services.inflows.tokens import confirm_tokens
from ctrip.services.inflows.witnesses import hear, hear_blocks, in_turn, look_again

MOST_STORED = 500
"""The most inflows of one run; the rounds go on only when all that they found is stored."""
MOST_SEARCHED = 20
"""The most inflows of one run whose block is searched for, with a few questions each. Others stand where they were
seen."""
log = get_logger()


def check_balances(ctx: Context, chain_id: int) -> Tick:
    """Run the loop of a chain's balances once.

    What the node does (silence, errors, a reorg meanwhile) is an outcome: the loop is released and tried again.
    """
    return run_loop(ctx, LoopKind.BALANCES, chain_id, work=_check)


def _check(run: Run) -> timedelta:
    """Look by the endpoint whose turn it is, or another that tells. Raises NodeUnavailable where none does."""
    confirm_tokens(run)
    chain = run.chain
    with run.ctx.sessions.begin() as session:
        cursor = cursors.find(session, chain.chain_id)
        if cursor is None or cursor.stopped_reason is not None:
            return period(LoopKind.BALANCES, chain)
        window = cursors.window(session, chain.chain_id, reorg_window=chain.reorg_window)
        rounds = balance_checks.find(session, chain.chain_id)
        doubted = inflows.unverified(session, chain.chain_id, head=cursor.read_block, limit=MOST_STORED)
    read = {header.number: header for header in window}
    # The chain's own word may lie further back.
    final_block = max(cursor.final_block(chain.rule), min(read))
    faults: list[ChainError] = []
    for first in in_turn(run):
        look = Look(run, first, read, block=read[cursor.read_block], final_block=final_block)
        turn = _turn(look, rounds)
        try:
            deep = {address: at for address, at in _deep(look, doubted).items() if address not in turn.deadlines}
            seen = see(look, turn.places | deep)
        except ChainError as error:
            faults.append(error)
        else:
            return _weigh(look, seen, doubted=doubted, turn=turn, rounds=rounds)
    if cursor.head_block - cursor.read_block > chain.reorg_window and all(isinstance(f, NodeRefused) for f in faults):
        # So old a state nodes do not have any more: what came meanwhile is found when the head is reached.
        return period(LoopKind.BALANCES, chain)
    raise NodeUnavailable(
        f"nobody tells balances after block {cursor.read_block}: {'; '.join(f.detail for f in faults)}"
    )


def _turn(look: Look, rounds: Rounds) -> Turn:
    most, every = most_at_once(look.first), pace(look.run.chain, to_finality=look.block.time - look.final_time)
    with look.run.ctx.sessions.begin() as session:
        return next_turn(
            session, rounds, read=look.read, block=look.block, final_time=look.final_time, every=every, most=most
        )


def _weigh(look: Look, seen: Sequence[Seen], *, doubted: Sequence[Transfer], turn: Turn, rounds: Rounds) -> timedelta:
    """Ask others for what differs from the rows, and for what seems to be nothing at a deadline; store what stands."""
    more, exact = [each for each in seen if each.surplus > 0], [each for each in seen if each.surplus == 0]
    other, hidden = look_again(look, [each for each in exact if each.address in turn.deadlines])
    stands, contested = _found(look, more[:MOST_STORED], old_deadlines=turn.old_deadlines)
    stands_too, contested_too = _found(other, hidden[:MOST_STORED], old_deadlines=turn.old_deadlines)
    refuted = _less(look, [each for each in seen if each.surplus < 0], doubted=doubted)
    after = turn.after if turn.deadlines.isdisjoint(contested | contested_too) else turn.held
    is_whole = max(len(more), len(hidden)) <= MOST_STORED
    return _store(
        look,
        [*stands, *stands_too],
        verified=_borne_out(look, doubted, exact),
        refuted=[transfer for transfer in doubted if transfer.recipient in refuted],
        after=after if is_whole else rounds,
        calls=None if turn.is_over and is_whole else calls_for(look.first, len(turn.places)),
    )


def _found(
    look: Look, more: Sequence[Seen], *, old_deadlines: Mapping[bytes, datetime]
) -> tuple[list[tuple[Seen, Inflow]], set[bytes]]:
    """Find where each surplus came in. Returns those that stand once others were asked, and whose others deny."""
    with look.run.ctx.sessions.begin() as session:
        inferred = inflows.newest_inferred(session, look.run.chain.chain_id, [each.address for each in more])
    first = more[:MOST_SEARCHED]
    wanted = {each.address: old_deadlines[each.address] for each in first if each.address in old_deadlines}
    in_time, contested = by_deadlines(look, wanted)
    searched = [
        in_time.get(each.address) or found_in(look, each, after=inferred.get(each.address, 0))
        for each in first
        if each.address not in contested
    ]
    hops, found = traced(look, searched), [*searched, *more[MOST_SEARCHED:]]
    # When it is deep it is looked at again, by others too where there are any: see `_borne_out`.
    words = hear(look, found)
    stands = [
        (
            each,
            Inflow(
                each.address,
                each.at,
                amount=each.surplus,
                hops=hops.get(each.address, ()),
                endpoint=look.first.endpoint or "",
            ),
        )
        for each in found
        if words[each.address] is not Word.CONTRADICTED
    ]
    return stands, {*contested, *(address for address, word in words.items() if word is Word.CONTRADICTED)}


def _is_alone(look: Look) -> bool:
    return len(look.run.ctx.clients[look.run.chain.chain_id].endpoints) == 1


def _block_of(transfer: Transfer) -> Header:
    return Header(transfer.block_number, transfer.block_hash, b"", transfer.block_time)


def _less(look: Look, less: Sequence[Seen], *, doubted: Sequence[Transfer]) -> set[bytes]:
    """Tell of addresses that hold less than the rows say. Returns those of which another endpoint says so too.

    A chain's only endpoint is believed of what it alone told of, and nobody has borne out.
    """
    words, unsure = hear(look, less), {transfer.recipient for transfer in doubted} if _is_alone(look) else set[bytes]()
    for each in less:
        if words[each.address] is not Word.CONTRADICTED and each.address not in unsure:
            metrics.BALANCE_MISMATCHES.labels(chain=look.run.chain.name).inc()
            where = {"address": checksum_address(each.address), "block": each.at.number}
            log.warning("balance_mismatch", chain=look.run.chain.name, **where, lacks=str(-each.surplus))
    borne_out = {address for address, word in words.items() if word is Word.BORNE_OUT}
    return borne_out | ({each.address for each in less} & unsure)


def _deep(look: Look, doubted: Sequence[Transfer]) -> dict[bytes, Header]:
    """Return, by address, the blocks that make doubted transfers deep: two endpoints must have them, too."""
    numbers: dict[bytes, int] = {}
    for transfer in doubted:
        deep = max(transfer.block_number + transfer.required - 1, min(look.read))
        numbers[transfer.recipient] = max(deep, numbers.get(transfer.recipient, 0))
    return {address: look.read[number] for address, number in numbers.items()}


def _borne_out(look: Look, doubted: Sequence[Transfer], exact: Sequence[Seen]) -> list[tuple[Transfer, Header]]:
    """Return doubted transfers whose addresses hold, by another endpoint too, what the rows say, and their blocks.

    Two endpoints tell of these, and when they were: it may be another time than the listener read. A chain's only one
    is asked once more: at its head a node may tell of a balance that is already that after the next block, and the
    transfer in there would count beside it.
    """
    addresses, deep = {transfer.recipient for transfer in doubted}, _deep(look, doubted)
    seen = [each for each in exact if each.address in addresses and each.at.number >= deep[each.address].number]
    if _is_alone(look):
        again = {each.address for each in seen}
        return [(each, _block_of(each)) for each in doubted if each.recipient in again]
    words = hear(look, seen)
    held = [each for each in doubted if words.get(each.recipient) is Word.BORNE_OUT]
    blocks = hear_blocks(look, {each.block_number for each in held})
    shared = {block.hash: block for block, word in blocks.values() if word is Word.BORNE_OUT}
    return [(each, shared[each.block_hash]) for each in held if each.block_hash in shared]


def _store(
    look: Look,
    found: Sequence[tuple[Seen, Inflow]],
    *,
    verified: Sequence[tuple[Transfer, Header]],
    refuted: Sequence[Transfer],
    after: Rounds,
    calls: int | None,
) -> timedelta:
    """Store what was found and everything that follows from it, in one fenced transaction."""
    run, chain = look.run, look.run.chain
    again_in = pace(chain, to_finality=look.block.time - look.final_time, calls=calls)
    stored: list[Transfer] = []
    with run.storing() as session:
        if found or verified or refuted:
            loops.lock(session, loops.loop_name(LoopKind.LISTENER, chain.chain_id))
            stored = inflows.store(session, chain, _standing(session, look, found), new_id=run.ctx.new_id)
            transfers.orphan(session, [transfer.id for transfer in refuted])
            touched = {transfer.payment_id for transfer in (*stored, *refuted)}
            for block in {block for transfer, block in verified if transfer.block_time != block.time}:
                touched |= inflows.correct_time(session, chain.chain_id, block)
            finality.mark_verified(session, [transfer.id for transfer, _ in verified])
            touched |= finality.settle_finality(session, chain.chain_id)
            chains = run.ctx.settings.chains_by_id
            run.delivery_ids += payments.reassess(session, touched, chains=chains, new_id=run.ctx.new_id)
        balance_checks.store(session, chain.chain_id, after)
        run.release(session, again_in=again_in)
    for transfer in stored:
        facts = {"transfer_id": transfer.id, "payment_id": transfer.payment_id, "block": transfer.block_number}
        log.info("inflow_stored", chain=chain.name, **facts, is_traced=transfer.tx_hash is not None)
    return again_in


def _standing(session: Connection, look: Look, found: Sequence[tuple[Seen, Inflow]]) -> list[Inflow]:
    """Return the inflows whose block is still canonical, and whose rows say what they said when it was found.

    What was inferred at a block may have come earlier: nothing is inferred before it, or it would count twice.
    """
    chain_id = look.run.chain.chain_id
    inferred = inflows.newest_inferred(session, chain_id, [seen.address for seen, _ in found])
    kept = {header.number: header.hash for header in cursors.headers(session, chain_id)}
    known = holdings.coin_at(session, chain_id, [Place(seen.address, seen.at.number) for seen, _ in found])
    return [
        inflow
        for seen, inflow in found
        if (kept.get(seen.at.number) == seen.at.hash or seen.at.number < min(kept))
        and known.get(seen.address) == seen.known
        and seen.at.number > inferred.get(seen.address, -1)
    ]
