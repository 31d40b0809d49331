"""Every endpoint is heard on transfers that one tells of and another denies: what each has in their blocks.

Where an endpoint's block shows nothing in the place of a transfer, its receipts must deny it as well: a node that keeps
no old logs leaves out what was there.
"""

from collections.abc import Sequence
from contextlib import suppress

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.matching import Issued
from ctrip.blockchain.others import alone
from ctrip.blockchain.reading import read_blocks
from ctrip.blockchain.verifying import Word, words_of
from ctrip.domain.forks import Voice
from ctrip.domain.rereading import Recount, Telling, position_of, recount
from ctrip.domain.transfers import Transfer
from ctrip.errors import BlockVanished, NodeRefused, NodeUnavailable

_VOICES = {Word.BORNE_OUT: Voice.KEPT, Word.CONTRADICTED: Voice.GONE, Word.NOT_TOLD: Voice.SILENT}


def recounted(client: ChainClient, contested: Sequence[Transfer], *, issued: Issued) -> Recount:
    """Ask each endpoint for the blocks of contested transfers, whole, and weigh what they tell.

    Who goes on telling of what most deny is distrusted.
    """
    if not contested:
        return Recount()
    tellings = {endpoint: _telling(client, endpoint, contested, issued=issued) for endpoint in client.endpoints}
    unsure = [token.address for token in client.chain.tokens if not token.is_payable]
    found = recount(contested, tellings, unsure=unsure)
    for endpoint in found.liars:
        with suppress(NodeUnavailable):
            alone(client, endpoint).distrust("receipt", f"{len(found.false)} transfer(s) that most others deny")
    return found


def _telling(client: ChainClient, endpoint: str, contested: Sequence[Transfer], *, issued: Issued) -> Telling | None:
    try:
        only = alone(client, endpoint)
        numbers = {transfer.block_number for transfer in contested}
        read = list(read_blocks(only, numbers, issued=issued))
    except (BlockVanished, NodeRefused, NodeUnavailable):
        return None
    hashes = frozenset(header.hash for each in read for header in each.headers)
    sightings = tuple(sighting for each in read for sighting in each.sightings)
    positions = {position_of(each) for each in sightings}
    lacking = [each for each in contested if each.block_hash in hashes and position_of(each) not in positions]
    words = words_of(only, lacking) if lacking else {}
    return Telling(hashes, sightings, {transfer_id: _VOICES[word] for transfer_id, word in words.items()})
