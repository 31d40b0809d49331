"""What is not believed at once: logs without receipts, receipts of another fork, empty answers, a change of mind.

Where one endpoint contradicts itself or another, it is passed over for a while, and nothing is stored.
"""

from collections.abc import Collection, Iterator, Sequence

from ctrip.blockchain.bloom import mask, may_hold
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import Block, Receipt, to_bytes
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word
from ctrip.blockchain.matching import BlockLogs
from ctrip.domain.addresses import COIN_LOGGER, NATIVE, hex_text
from ctrip.domain.scanning import Header
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Sighting
from ctrip.errors import BlockVanished, ChainError, NodeRefused, NodeUnavailable

BEHIND = 2
"""An endpoint whose head is so many blocks below another's may not have heard of a reorg yet: it has no voice."""
MOST_ASKED = 3
"""How many others are asked: each may take the time of a whole request, and the loop's lease goes on."""


def bear_out(pinned: ChainClient, seen: Sequence[Sighting]) -> list[Sighting]:
    """Return the sightings that their receipts show as well; coin of a transaction that failed is none.

    Raises BlockVanished where the chain moved meanwhile, NodeUnavailable where the endpoint contradicts itself.
    """
    receipts = pinned.receipts(sorted({each.tx_hash for each in seen}))
    for each in seen:
        receipt = receipts.get(each.tx_hash)
        if receipt is None or receipt.block_hash != each.block_hash or not _shows(receipt, each):
            raise _not_borne_out(pinned, each)
    return [each for each in seen if receipts[each.tx_hash].succeeded]


def check_empty(
    client: ChainClient, pinned: ChainClient, blocks: Sequence[BlockLogs], *, tokens: Collection[bytes]
) -> None:
    """Ask elsewhere for the logs of blocks that have none here, though their bloom filter says that they may.

    Mostly the filter errs. Raises NodeUnavailable where it did not.
    """
    masks = [mask(token, TRANSFER_TOPIC) for token in tokens]
    doubtful = [each.block for each in blocks if not each.logs and may_hold(each.block.bloom, masks)]
    if not doubtful:
        return
    for block, is_empty in zip(doubtful, _look_again(client, pinned, doubtful, tokens), strict=True):
        if not is_empty:
            detail = f"no logs in block {block.header.number}, which has some"
            pinned.distrust("empty_logs", detail)
            raise NodeUnavailable(f"{pinned.endpoint} told of {detail}")


def check_reorg(client: ChainClient, pinned: ChainClient, *, lost: Header, head: Header) -> None:
    """Ask other endpoints whether the stored block `lost` is gone, as this one says.

    Raises NodeUnavailable where as many hold on to it as not: then nothing moves until they agree.
    """
    gone, kept = 1, 0
    for other in _others(client, pinned):
        try:
            theirs, told = other.head(), other.headers([lost.number]).get(lost.number)
        except ChainError:
            continue
        if told is None or theirs.number < head.number - BEHIND:
            continue
        kept += told.hash == lost.hash
        gone += told.hash != lost.hash
    if kept >= gone:
        detail = f"another block {lost.number} than {kept} other endpoint(s) have"
        # Whoever is right is not known, so none is passed over: the next step asks again, until they agree.
        pinned.dispute("fork", detail)
        raise NodeUnavailable(f"{pinned.endpoint} told of {detail}")


def _others(client: ChainClient, pinned: ChainClient) -> Iterator[ChainClient]:
    others = [label for label in client.endpoints if label != pinned.endpoint]
    for label in others[:MOST_ASKED]:
        try:
            yield client.pinned(avoiding=set(client.endpoints) - {label})
        except NodeUnavailable:
            continue


def _shows(receipt: Receipt, seen: Sighting) -> bool:
    """True where the receipt holds the log of a token's transfer. Coin has none: its status is looked at elsewhere."""
    if seen.log_index == NATIVE_LOG_INDEX:
        return True
    topics = (TRANSFER_TOPIC, address_word(seen.sender), address_word(seen.recipient))
    teller = COIN_LOGGER if seen.token == NATIVE else seen.token
    wanted = (teller, topics, seen.amount.to_bytes(32), seen.log_index)
    return any((log.address, log.topics, log.payload, log.log_index) == wanted for log in receipt.logs)


def _not_borne_out(pinned: ChainClient, seen: Sighting) -> ChainError:
    """Say which it is: a block that is gone, or an endpoint whose receipts and blocks tell different stories."""
    canonical = pinned.headers([seen.block_number]).get(seen.block_number)
    if canonical is None or canonical.hash != seen.block_hash:
        return BlockVanished(f"{pinned.chain.name} has no receipt in block {seen.block_number} any more")
    detail = f"a transfer in {hex_text(seen.tx_hash)} that its receipt does not show"
    pinned.distrust("receipt", detail)
    return NodeUnavailable(f"{pinned.endpoint} told of {detail}")


def _look_again(
    client: ChainClient, pinned: ChainClient, blocks: Sequence[Block], tokens: Collection[bytes]
) -> list[bool]:
    """Return for each block whether it is empty of `tokens`, by another endpoint, or by this one's receipts."""
    for other in _others(client, pinned):
        try:
            return [not found for found in other.logs([block.header for block in blocks], tokens=tokens)]
        except ChainError:
            continue
    return [_is_empty(pinned, block, tokens) for block in blocks]


def _is_empty(pinned: ChainClient, block: Block, tokens: Collection[bytes]) -> bool:
    try:
        receipts = pinned.block_receipts(block.header.hash)
    except NodeRefused:
        # Not every node has all receipts of a block in one answer; those of its transactions say the same.
        found = pinned.receipts([to_bytes(tx.hash) for tx in block.transactions])
        if len(found) < len(block.transactions):
            raise BlockVanished(f"{pinned.chain.name} has not all receipts of {block.header.number}") from None
        receipts = list(found.values())
    return not any(
        log.address in tokens and log.topics[:1] == (TRANSFER_TOPIC,) for receipt in receipts for log in receipt.logs
    )
