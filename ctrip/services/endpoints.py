"""Every endpoint of every chain, asked by itself: does it answer, on which chain, and are the tokens as listed."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.transport import labels_of
from ctrip.context import Context
from ctrip.database import cursors
from ctrip.domain.chains import Chain
from ctrip.domain.scanning import Cursor
from ctrip.errors import MisconfiguredError, NodeRefused, NodeUnavailable


@dataclass(frozen=True)
class EndpointReport:
    """One endpoint of a chain. `endpoint` is its label; heights are block numbers, None where they are not known."""

    chain: str
    chain_id: int
    endpoint: str
    head_block: int | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChainReport:
    """One chain: its endpoints, how far it was read, and what is wrong with it as a whole."""

    chain: str
    chain_id: int
    enabled: bool
    read_block: int | None
    endpoints: tuple[EndpointReport, ...]
    faults: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """True where nothing is wrong; a chain that is switched off, or was not read yet, is no fault."""
        return not self.faults and not any(endpoint.faults for endpoint in self.endpoints)


def check(ctx: Context, clients: Mapping[int, Sequence[ChainClient]]) -> list[ChainReport]:
    """Ask each endpoint by its own client, all at once, and compare with what is configured and what was read."""
    with ctx.sessions.begin() as session:
        read = cursors.find_all(session)
    with ThreadPoolExecutor(max_workers=16) as pool:
        asked = {
            chain.chain_id: pool.map(_ask, clients.get(chain.chain_id, ()), labels_of(chain.rpc_urls))
            for chain in ctx.settings.chains
        }
        return [_report(chain, read.get(chain.chain_id), tuple(asked[chain.chain_id])) for chain in ctx.settings.chains]


def _report(chain: Chain, cursor: Cursor | None, endpoints: tuple[EndpointReport, ...]) -> ChainReport:
    faults = []
    if cursor is not None and cursor.stopped_reason is not None:
        faults.append(f"stopped: {cursor.stopped_reason}")
    if chain.enabled and not any(endpoint.head_block is not None for endpoint in endpoints):
        faults.append("no endpoint answers")
    heads = [endpoint.head_block for endpoint in endpoints if endpoint.head_block is not None]
    if cursor is not None and heads and max(heads) < cursor.read_block - chain.reorg_window:
        faults.append(
            f"the newest head is {max(heads)}, but block {cursor.read_block} was read: this chain lost more blocks "
            f"than reorg_window ({chain.reorg_window}), or it is another one"
        )
    return ChainReport(
        chain=chain.name,
        chain_id=chain.chain_id,
        enabled=chain.enabled,
        read_block=None if cursor is None else cursor.read_block,
        endpoints=endpoints,
        faults=tuple(faults),
    )


def _ask(client: ChainClient, label: str) -> EndpointReport:
    report = EndpointReport(client.chain.name, client.chain.chain_id, label)
    try:
        client.verify()
        head = client.head()
        return replace(report, head_block=head.number, faults=tuple(_token_faults(client)))
    except (MisconfiguredError, NodeUnavailable, NodeRefused) as error:
        return replace(report, faults=(error.detail,))


def _token_faults(client: ChainClient) -> list[str]:
    faults = []
    for token in client.chain.tokens:
        if token.is_native:
            continue
        try:
            told = client.decimals(token.address)
        except NodeRefused as error:
            faults.append(f"{token.symbol}: its contract does not tell its decimals: {error.rpc_message[:100]}")
            continue
        if told != token.decimals:
            faults.append(f"{token.symbol}: listed with {token.decimals} decimals, its contract says {told}")
    return faults
