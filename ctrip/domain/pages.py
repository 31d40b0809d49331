"""Pages of a list, as clients see them."""

from collections.abc import Sequence


def list_object(found: Sequence[dict[str, object]], *, limit: int) -> dict[str, object]:
    """Render a page of at most `limit` objects. `found` holds one more where the list goes on after it.

    The cursor of the next page is the id of this page's last object.
    """
    shown = list(found[:limit])
    has_more = len(found) > limit
    return {
        "object": "list",
        "data": shown,
        "has_more": has_more,
        "next_cursor": shown[-1]["id"] if has_more else None,
    }


def whole_list(objects: list[dict[str, object]]) -> dict[str, object]:
    """Render a list that has one page."""
    return list_object(objects, limit=len(objects))
