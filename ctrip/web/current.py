"""What the request at hand belongs to: the context, the caller, its id."""

from typing import cast

from flask import current_app, g, request

from ctrip.context import Context


def context() -> Context:
    """Return the context that the application was created with."""
    return cast(Context, current_app.extensions["ctrip"])


def merchant_id() -> str:
    """Return the merchant whose key the request carries. A route with a merchant's scope always has one."""
    return cast(str, g.identity.merchant_id)


def request_id() -> str:
    """Return the id under which this request stands in the logs."""
    return cast(str, g.request_id)


def route() -> str:
    """Return the method and the template of the route, never an id; `unmatched` where no route answers."""
    return "unmatched" if request.url_rule is None else f"{request.method} {request.url_rule.rule}"


def caller_id() -> str:
    """The id of the key that the request came with, for the audit log."""
    key_id: str = g.identity.key_id
    return key_id
