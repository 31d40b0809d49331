"""A query says what its route knows, and each thing once."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, get_origin

from flask import current_app, request

from ctrip.errors import InvalidValue


def refuse_strays() -> None:
    """Raise InvalidValue for a query parameter that the route does not have, or that is there twice.

    The framework takes the first of two, and reads no query where the route has none. Whoever sent `?dry_run=true`, or
    two filters, would not hear that it was not heeded.
    """
    if not request.query_string:
        return
    known = _parameters(current_app.view_functions[request.endpoint or ""])
    for name, values in request.args.lists():
        if name not in known:
            raise InvalidValue("there is no such parameter", param=name[:100])
        if len(values) > 1 and not known[name]:
            raise InvalidValue("it is there more than once", param=name)


@cache
def _parameters(view: Callable[..., Any]) -> dict[str, bool]:
    """Return the query parameters of a route; True where one may be repeated."""
    model = inspect.get_annotations(view, eval_str=True).get("query")
    fields = {} if model is None else model.model_fields
    return {field.alias or name: get_origin(field.annotation) is list for name, field in fields.items()}
