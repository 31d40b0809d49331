"""Chains as clients see them: what can be asked for on each, and how far it was read."""

from ctrip.context import Context
from ctrip.database import cursors
from ctrip.domain.addresses import checksum_address
from ctrip.domain.chains import Chain
from ctrip.domain.pages import whole_list
from ctrip.domain.scanning import Cursor
from ctrip.settings.rates import RateSettings


def overview(ctx: Context) -> dict[str, object]:
    """Return every configured chain, as a list of one page."""
    with ctx.sessions.begin() as session:
        read = cursors.find_all(session)
    chains, rates = ctx.settings.chains, ctx.settings.rates
    return whole_list([_chain_object(chain, read.get(chain.chain_id), rates) for chain in chains])


def _chain_object(chain: Chain, cursor: Cursor | None, rates: RateSettings) -> dict[str, object]:
    return {
        "object": "chain",
        "name": chain.name,
        "chain_id": chain.chain_id,
        "enabled": chain.enabled,
        "status": "not_ready" if cursor is None else "stopped" if cursor.stopped_reason else "ready",
        "native": {
            "symbol": chain.native.symbol,
            "decimals": chain.native.decimals,
            "currencies": list(rates.currencies_of(chain.native)),
        },
        "tokens": [
            {
                "symbol": token.symbol,
                "address": checksum_address(token.address),
                "decimals": token.decimals,
                "payable": token.is_payable,
                "currencies": list(rates.currencies_of(token)),
            }
            for token in chain.tokens
            if not token.is_native
        ],
        "confirmations": chain.confirmations,
        "reorg_window": chain.reorg_window,
        "head_block": cursor and cursor.head_block,
        "read_block": cursor and cursor.read_block,
        "final_block": cursor and max(0, cursor.final_block(chain.rule)),
        "lag_blocks": cursor and max(0, cursor.head_block - cursor.read_block),
    }
