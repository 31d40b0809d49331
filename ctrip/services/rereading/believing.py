"""Whether an endpoint that tells of old blocks is on the chain that the listener has read."""

from collections.abc import Iterable, Sequence

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.history import CheckHeaders, Hits, check_lineage
from ctrip.blockchain.reading import BlocksRead, Check
from ctrip.context import Context
from ctrip.database import cursors, rereading
from ctrip.domain.scanning import Header


def on_our_chain(ctx: Context, client: ChainClient) -> CheckHeaders:
    """Return what looks at the headers that one endpoint told of blocks that link, or at the edges of such.

    It raises a ChainError where they are not those that the listener has read; of those that are older than all that it
    keeps, the last one is asked of others (`check_lineage`): where that is right, none before it differs. Let `client`
    be one that keeps the lease, where there is one to keep.
    """

    def check(pinned: ChainClient, headers: Sequence[Header]) -> None:
        with ctx.sessions.begin() as session:
            rereading.check_canonical(session, client.chain, headers)
            kept = cursors.headers(session, client.chain.chain_id)
        if kept and headers[-1].number < kept[0].number:
            check_lineage(client, pinned, headers[-1], read=kept[0])

    return check


def of_our_chain(ctx: Context, client: ChainClient, *, hits: Iterable[Hits] = ()) -> Check:
    """Return what looks at whole blocks in the same way, and that they show all that `hits` have told of."""
    check = on_our_chain(ctx, client)

    def check_read(pinned: ChainClient, read: BlocksRead) -> None:
        check(pinned, read.headers)
        for each in hits:
            each.check(pinned, read)

    return check_read
