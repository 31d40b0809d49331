"""Quotas of requests: by key for whoever has one that is right, by address for all others."""

from ctrip.context import Context
from ctrip.domain.quotas import QuotaOf, Spent, window_of


def spend(ctx: Context, of: QuotaOf, name: str) -> Spent | None:
    """Count a request of a key or an address, and say how it stands; None where there is no such quota."""
    quota = ctx.settings.quotas.get(of)
    if quota is None or ctx.counters is None:
        return None
    number, ends_in_s = window_of(ctx.now().timestamp(), quota)
    counted = f"{of}:{name}:{quota.window_s}:{number}"
    # Of keys there are few; who has none that is right comes from any number of addresses.
    at_once = quota.at_once if of is QuotaOf.KEY else 1
    count = ctx.counters.count(counted, kept_s=quota.window_s, at_once=at_once)
    return Spent(of, quota, count, ends_in_s)
