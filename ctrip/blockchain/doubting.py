"""What is not believed at once: logs without receipts, receipts of another fork, logs that a block seems to lack.

Where one endpoint contradicts itself or another, it is passed over for a while, and nothing is stored.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ctrip.blockchain.bloom import chance_of_yes, is_told, mask, may_hold
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import Block, LogJson, Receipt, to_bytes
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word
from ctrip.blockchain.matching import BlockLogs, checked
from ctrip.blockchain.others import others
from ctrip.domain.addresses import COIN_LOGGER, NATIVE, hex_text
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Sighting
from ctrip.errors import BlockVanished, ChainError, NodeRefused, NodeUnavailable

HEEDED = 0.1
"""Where some of the tokens have logs, a filter is heeded that says yes to the others by chance no oftener than this.

That is what doubt costs at the most in blocks that are whole: one small request for ten of them. The filters of a chain
as busy as Ethereum are too full for that; there only a block without logs of any listed token is doubted.
"""
SURE = 0.01
"""A filter that says yes by chance no oftener is overruled by receipts alone, not by two endpoints that tell no logs.

Of the blocks that are whole, one in a hundred costs a request for that, of all receipts of the block.
"""

MANY = 20
"""Receipts that are asked for one by one, in batches as small as some endpoints want them, and no more of them."""


@dataclass(frozen=True)
class Doubt:
    """Tokens without logs in a block that may have some.

    `by_chance` is how likely it has none and the filter says so all the same. `calls` are the transactions that speak
    for it where the filter tells nothing. `is_bare`: the block has no logs of any token.
    """

    block: Block
    tokens: frozenset[bytes]
    by_chance: float
    is_bare: bool
    calls: tuple[bytes, ...] = ()


def bear_out(
    client: ChainClient, pinned: ChainClient, seen: Sequence[Sighting]
) -> tuple[list[Sighting], list[Sighting]]:
    """Return the sightings that their receipts show as well, and those whose transactions failed: nothing moved.

    Raises BlockVanished where the chain moved meanwhile, NodeUnavailable where the endpoint contradicts itself, or
    another one that says of a failed transaction that it succeeded.
    """
    receipts = _receipts_of(pinned, seen)
    for each in seen:
        receipt = receipts.get(each.tx_hash)
        if receipt is None or receipt.block_hash != each.block_hash or not _shows(receipt, each):
            raise _not_borne_out(pinned, each)
    failed = [each for each in seen if not receipts[each.tx_hash].succeeded]
    if not failed:
        return list(seen), []
    _check_failed(client, pinned, failed)
    return [each for each in seen if receipts[each.tx_hash].succeeded], failed


def checked_or_distrusted(
    pinned: ChainClient, block: Block, logs: Sequence[LogJson], *, tokens: Collection[bytes], logs_coin: bool
) -> BlockLogs:
    """Do as `checked`, and pass over an endpoint for a while whose logs cannot be those that were asked for."""
    try:
        return checked(block, logs, tokens=tokens, logs_coin=logs_coin)
    except NodeUnavailable as error:
        pinned.distrust("logs", error.detail)
        raise


def check_empty(
    client: ChainClient, pinned: ChainClient, blocks: Sequence[BlockLogs], *, tokens: Collection[bytes]
) -> None:
    """Look again at blocks that have no logs of a token here, though they may hold some.

    Another endpoint is asked first, and receipts where that leaves a doubt. Mostly the filter errs. Raises
    NodeUnavailable where it did not. That a token has some logs and lacks others, no filter shows.
    """
    doubts = [doubt for each in blocks if (doubt := doubt_of(each, tokens)) is not None]
    if not doubts:
        return
    rest, asked = [doubt for doubt in doubts if not doubt.calls], False
    for other in others(client, heard=[pinned.endpoint]) if rest else ():
        try:
            found = other.logs([doubt.block.header for doubt in rest], tokens=tokens)
        except (BlockVanished, NodeRefused, NodeUnavailable):
            continue
        for doubt, logs in zip(rest, found, strict=True):
            _hold_against(pinned, doubt, (to_bytes(log.address) for log in logs))
        asked = True
        break
    for doubt in doubts:
        if doubt.calls or doubt.by_chance <= SURE or (doubt.is_bare and not asked):
            _hold_against(pinned, doubt, _tellers(pinned, doubt))


def doubt_of(each: BlockLogs, tokens: Collection[bytes]) -> Doubt | None:
    """Return what a block may hold besides the logs that were told; None where nothing speaks for it.

    A filter that tells nothing, as all do on some chains, is no word either way. There a transaction that calls a
    token itself speaks for a log: what a contract in between did is not seen.
    """
    silent = [token for token in tokens if token not in each.tellers]
    if not silent:
        return None
    bloom, is_bare = each.block.bloom, not each.logs
    if not is_told(bloom):
        calls = {to_bytes(tx.hash): to_bytes(tx.to) for tx in each.block.transactions if tx.to is not None}
        calls = {tx_hash: called for tx_hash, called in calls.items() if called in silent}
        return Doubt(each.block, frozenset(calls.values()), 0, is_bare, tuple(calls)) if calls else None
    by_chance = chance_of_yes(bloom, len(silent))
    if not is_bare and by_chance > HEEDED:
        return None
    held = frozenset(token for token in silent if may_hold(bloom, [mask(token, TRANSFER_TOPIC)]))
    return Doubt(each.block, held, by_chance, is_bare) if held else None


def _receipts_of(pinned: ChainClient, seen: Sequence[Sighting]) -> dict[bytes, Receipt]:
    """Return the receipts of what was seen: of a block with MANY all in one answer, where the node tells them so."""
    of_blocks: dict[bytes, set[bytes]] = {}
    for each in seen:
        of_blocks.setdefault(each.block_hash, set()).add(each.tx_hash)
    found: dict[bytes, Receipt] = {}
    for block_hash, wanted in of_blocks.items():
        if len(wanted) > MANY:
            with suppress(NodeRefused):
                told = pinned.block_receipts(block_hash)
                found |= {receipt.tx_hash: receipt for receipt in told if receipt.tx_hash in wanted}
    missing = {each.tx_hash for each in seen} - found.keys()
    return found | pinned.receipts(sorted(missing))


def _shows(receipt: Receipt, seen: Sighting) -> bool:
    """True where the receipt holds the log of a token's transfer. Coin has none: its status is looked at elsewhere."""
    if seen.log_index == NATIVE_LOG_INDEX:
        return True
    topics = (TRANSFER_TOPIC, address_word(seen.sender), address_word(seen.recipient))
    teller = COIN_LOGGER if seen.token == NATIVE else seen.token
    wanted = (teller, topics, seen.amount.to_bytes(32), seen.log_index)
    return any((log.address, log.topics, log.payload, log.log_index) == wanted for log in receipt.logs)


def _check_failed(client: ChainClient, pinned: ChainClient, failed: Sequence[Sighting]) -> None:
    """Ask other endpoints whether transactions failed as well. Raises as `bear_out` does.

    Where nobody else can tell, coin is taken not to have moved: its receipt contradicts nothing, and if that is a lie
    the money is found by its balance. A failed transaction has no logs, so a token's Transfer contradicts it.
    """
    untold = {each.tx_hash: each for each in failed}
    for other in others(client, heard=[pinned.endpoint]):
        try:
            told = other.receipts(sorted(untold))
        except (NodeRefused, NodeUnavailable):
            continue
        for tx_hash in untold.keys() & told.keys():
            if told[tx_hash].block_hash == untold[tx_hash].block_hash:
                each = untold.pop(tx_hash)
                if told[tx_hash].succeeded:
                    raise _not_borne_out(pinned, each)
        if not untold:
            return
    for each in failed:
        if each.tx_hash in untold and each.log_index != NATIVE_LOG_INDEX:
            raise _not_borne_out(pinned, each)


def _not_borne_out(pinned: ChainClient, seen: Sighting) -> ChainError:
    """Say which it is: a block that is gone, or an endpoint whose receipts and blocks tell different stories."""
    canonical = pinned.headers([seen.block_number]).get(seen.block_number)
    if canonical is None or canonical.hash != seen.block_hash:
        return BlockVanished(f"{pinned.chain.name} has no receipt in block {seen.block_number} any more")
    detail = f"a transfer in {hex_text(seen.tx_hash)} that its receipt does not show"
    pinned.distrust("receipt", detail)
    return NodeUnavailable(f"{pinned.endpoint} told of {detail}")


def _hold_against(pinned: ChainClient, doubt: Doubt, tellers: Iterator[bytes]) -> None:
    """Raise NodeUnavailable where one of `tellers`, which have logs in the block, is a token that is doubted."""
    if not doubt.tokens.isdisjoint(tellers):
        detail = f"no logs of a token in block {doubt.block.header.number}, which has some"
        pinned.distrust("empty_logs", detail)
        raise NodeUnavailable(f"{pinned.endpoint} told of {detail}")


def _tellers(pinned: ChainClient, doubt: Doubt) -> Iterator[bytes]:
    """Return the contracts with Transfers in the receipts of a block, or of the calls that speak for some."""
    receipts = list(pinned.receipts(doubt.calls).values()) if doubt.calls else _receipts(pinned, doubt.block)
    if len(receipts) < len(doubt.calls) or any(each.block_hash != doubt.block.header.hash for each in receipts):
        raise BlockVanished(f"{pinned.chain.name} has not all receipts of block {doubt.block.header.number}")
    return (log.address for each in receipts for log in each.logs if log.topics[:1] == (TRANSFER_TOPIC,))


def _receipts(pinned: ChainClient, block: Block) -> list[Receipt]:
    """Return the receipts of all transactions of a block, and of more where its node tells so. Raises BlockVanished."""
    try:
        told = {receipt.tx_hash: receipt for receipt in pinned.block_receipts(block.header.hash)}
    except NodeRefused:
        told = {}
    # Not every node has all receipts of a block in one answer, and an answer may lack some: each is asked for then.
    missing = [tx_hash for tx in block.transactions if (tx_hash := to_bytes(tx.hash)) not in told]
    told |= pinned.receipts(missing)
    if any(tx_hash not in told for tx_hash in missing):
        raise BlockVanished(f"{pinned.chain.name} has not all receipts of block {block.header.number}")
    return list(told.values())
