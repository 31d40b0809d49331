"""Loops as operators read them."""

from pydantic import Field

from ctrip.web.schemas import ListOf, Outgoing, Path

_NAME = "^[a-z]{1,20}:[0-9]{1,20}$"


class LoopPath(Path):
    """Which loop."""

    name: str = Field(pattern=_NAME, description="Its kind and its chain's id.")


class Loop(Outgoing):
    """Work on a chain that is done over and over."""

    name: str = Field(pattern=_NAME, description="Its kind and its chain's id.")
    every_ms: int = Field(description="The time between two runs.")
    enabled: bool = Field(description="False while it is paused.")
    next_run_at: str = Field(description="When it is due (RFC 3339, UTC).")
    last_tick_at: str | None = Field(description="When it last ended a run.")
    lease_until: str | None = Field(description="Until when the run at hand owns it.")
    fence: int = Field(description="The number of the newest claim.")


class LoopList(ListOf[Loop]):
    """All loops."""
