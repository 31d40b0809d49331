"""Tokens that had not told their decimals when the process started are asked again, before balances are looked at."""

from ctrip.blockchain.tokens import confirm, unconfirmed
from ctrip.errors import NodeRefused, NodeUnavailable
from ctrip.log import get_logger
from ctrip.runs import Run

log = get_logger()


def confirm_tokens(run: Run) -> None:
    """Ask the tokens of a chain that are not what they are listed as, or have not said so yet. Raises nothing."""
    client, chain = run.ctx.clients[run.chain.chain_id].keeping(run.keep_lease), run.chain
    for token in unconfirmed(chain):
        try:
            told = confirm(client, token)
        except NodeRefused as error:
            log.warning("token_tells_no_decimals", chain=chain.name, token=token.symbol, reason=error.detail)
        except NodeUnavailable:
            return  # the look that follows says so
        else:
            if told != token.decimals:
                log.error("token_has_other_decimals", chain=chain.name, token=token.symbol, told=told)
