"""All that is stored of one payment, whoever's it is: for operators who must say why it is, or is not, paid."""

from ctrip.context import Context
from ctrip.database import evidence
from ctrip.domain.evidence import Evidence

MOST = 1000


def gather(ctx: Context, payment_id: str) -> Evidence:
    """Read a payment and everything around it at one moment, at most 1,000 of a kind. Raises NotFound."""
    with ctx.sessions.begin() as session:
        return evidence.gather(session, payment_id, chains=ctx.settings.chains, most=MOST)
