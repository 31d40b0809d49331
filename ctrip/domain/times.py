"""Moments as clients see them."""

from datetime import datetime


def timestamp(moment: datetime) -> str:
    """Write an aware UTC moment in RFC 3339, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
