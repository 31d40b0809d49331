"""What balancers and people ask of a running process."""

from typing import Literal

from pydantic import Field

from ctrip.web.schemas import Outgoing

Part = Literal["ok", "unavailable"]


class Alive(Outgoing):
    """The process runs."""

    status: Literal["ok"] = Field(description="Always `ok`.")


class Checks(Outgoing):
    """Each part by itself."""

    postgres: Part = Field(description="Whether the database answers. Without it the process is not ready.")
    migrations: Literal["ok", "missing", "unknown"] = Field(
        description="Whether the database has the revision of this program. Without it the process is not ready."
    )
    redis: Part = Field(description="Whether Redis answers. Without it payments are created, and noticed later.")
    chains: dict[str, Literal["ok", "not_ready", "stopped", "lagging"]] = Field(
        description="Each enabled chain: `not_ready` was never read, `stopped` waits for an operator, `lagging` is "
        "read, but behind."
    )


class Readiness(Outgoing):
    """Whether the process can serve, and what is amiss."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="`degraded` serves all the same (200); `unavailable` does not (503)."
    )
    version: str = Field(description="The version that runs.")
    checks: Checks = Field(description="How each part is.")
