"""Moments as clients see them."""

from datetime import datetime


def timestamp(moment: datetime) -> str:
    """Write an aware UTC moment in RFC 3339, to the second."""
    return moment.isoformat(timespec="seconds").removesuffix("+00:00") + "Z"
