"""Whose quota a request counts for, and the headers that say how much of it is left.

They are those of draft-ietf-httpapi-ratelimit-headers.
"""

from flask import Response, g, request

from ctrip.domain.quotas import QuotaOf
from ctrip.errors import RateLimited
from ctrip.services import quotas
from ctrip.web.current import context


def spend_of_key() -> None:
    """Count this request for the key that it came with. Raises RateLimited."""
    _spend(QuotaOf.KEY, g.identity.key_id)


def spend_of_address() -> None:
    """Count this request, which came with no key that is right, for its address. Raises RateLimited.

    A key that is right passes all the same: behind one proxy there may be many callers, and one of them stops no other.
    """
    _spend(QuotaOf.ADDRESS, request.remote_addr or "unknown")


def describe(response: Response) -> None:
    """Say in the headers of an answer how its sender stands, where a quota has counted the request."""
    spent = g.get("spent")
    if spent is None:
        return
    response.headers["RateLimit-Policy"] = f'"{spent.of}";q={spent.quota.most};w={spent.quota.window_s}'
    response.headers["RateLimit"] = f'"{spent.of}";r={spent.left};t={spent.ends_in_s}'
    if spent.is_over:
        response.headers["Retry-After"] = str(spent.ends_in_s)


def _spend(of: QuotaOf, name: str) -> None:
    g.spent = quotas.spend(context(), of, name)
    if g.spent is not None and g.spent.is_over:
        most, window_s = g.spent.quota.most, g.spent.quota.window_s
        raise RateLimited(f"this {of} may send {most} requests in {window_s} s; go on in {g.spent.ends_in_s} s")
