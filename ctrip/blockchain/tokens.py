"""Listed tokens are what their contracts say: each is asked for its decimals until it has told the listed ones.

A wrong number asks buyers for a wrong amount, and at an address without a contract nobody can pay.
"""

from ctrip import metrics
from ctrip.blockchain.client import ChainClient
from ctrip.domain.chains import Chain, Token

_CONFIRMED: set[tuple[int, Token]] = set()


def unconfirmed(chain: Chain) -> list[Token]:
    """Return the tokens in service that have not told this process the decimals that they are listed with.

    That they have not is shown in a metric.
    """
    listed = [token for token in chain.tokens if token.enabled and not token.is_native]
    found = [token for token in listed if (chain.chain_id, token) not in _CONFIRMED]
    for token in found:
        _show(chain, token, is_unconfirmed=True)
    return found


def confirm(client: ChainClient, token: Token) -> int:
    """Ask a token for its decimals, which confirms it where they are those that it is listed with; return them.

    Raises NodeRefused where it tells none, NodeUnavailable.
    """
    chain, told = client.chain, client.decimals(token.address)
    if told == token.decimals:
        _CONFIRMED.add((chain.chain_id, token))
        _show(chain, token, is_unconfirmed=False)
    return told


def _show(chain: Chain, token: Token, *, is_unconfirmed: bool) -> None:
    metrics.TOKEN_UNCONFIRMED.labels(chain=chain.name, token=token.symbol).set(is_unconfirmed)
