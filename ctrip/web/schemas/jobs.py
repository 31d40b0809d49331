"""Jobs as operators ask for them and read them."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ctrip.domain.jobs import JobKind, JobStatus
from ctrip.web.schemas import AFTER, ULID, Incoming, ListOf, Outgoing, Page, Path, Text, storable

_JOB_ID = f"^job_{ULID}$"
_PAYMENT_ID = f"^pay_{ULID}$"
_A_PAYMENT = "pay_01ARZ3NDEKTSV4RRFFQ69G5FAV"
AN_ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


def _json(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("it is a JSON object of your own")  # noqa: TRY004 (pydantic reads ValueError)
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise ValueError("it holds a number that is out of range") from error
    for text in _texts(value):
        storable(text)
    return value


def _texts(value: Any) -> Iterator[str]:
    """Find every text in a JSON value, names too, however deep it is."""
    left = [value]
    while left:
        match left.pop():
            case str() as text:
                yield text
            case list() as items:
                left += items
            case dict() as members:
                left += [*members, *members.values()]


# The parameters of a query are read in strict mode, which takes no text for a StrEnum.
JobKindName = Literal[
    "scan-now", "sweep-now", "sweep-address", "process-payment", "backfill", "send-webhook", "custom-webhook"
]
JobStatusName = Literal["scheduled", "running", "done", "failed"]


class ScanNow(Incoming):
    """Which chain to read to its head."""

    chain: Text = Field(min_length=1, max_length=32, description="A chain by its name.", examples=["anvil"])


class SweepNow(Incoming):
    """Which chain's sweeper is to make a tick."""

    chain: Text = Field(min_length=1, max_length=32, description="A chain by its name.", examples=["anvil"])


class SweepAddress(Incoming):
    """What to sweep, also below the threshold. Never more than what is final is swept."""

    chain: Text = Field(min_length=1, max_length=32, description="A chain by its name.", examples=["anvil"])
    address: Text = Field(
        min_length=1, max_length=64, description="An address that was issued here.", examples=[AN_ADDRESS]
    )
    token: Text | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="A listed token by its symbol or contract address; null or absent: the chain's own coin.",
        examples=["USDC"],
    )


class ProcessPayment(Incoming):
    """Which payment to read again from its chain."""

    payment_id: str = Field(pattern=_PAYMENT_ID, description="The payment's id.", examples=[_A_PAYMENT])


class Backfill(Incoming):
    """Which chain to read what is missing of."""

    chain: Text = Field(min_length=1, max_length=32, description="A chain by its name.", examples=["anvil"])


class SendWebhook(Incoming):
    """Which event of a payment to send again, to every destination that it is owed to now."""

    payment_id: str = Field(pattern=_PAYMENT_ID, description="The payment's id.", examples=[_A_PAYMENT])
    type: Text = Field(
        min_length=1,
        max_length=64,
        description="The event's type, one that the payment has; of several the newest is sent.",
        examples=["payment.created"],
    )


class CustomWebhook(Incoming):
    """What to post where. Five attempts are made, 5 s after each other and doubling."""

    url: Text = Field(
        min_length=1,
        max_length=2_048,
        description="Where to: as guarded as any webhook's destination.",
        examples=["https://shop.example/hooks"],
    )
    payload: Annotated[dict[str, Any], BeforeValidator(_json)] = Field(
        description="The JSON object to post.", examples=[{"hello": "world"}]
    )
    merchant_id: str | None = Field(
        default=None,
        pattern=f"^mer_{ULID}$",
        description="Signs with this merchant's secret; null or absent: the POST carries no signature.",
    )


class JobPath(Path):
    """Which job."""

    job_id: str = Field(pattern=_JOB_ID, description="The job's id.")


class JobQuery(Page):
    """Which jobs, newest first."""

    kind: JobKindName | None = Field(default=None, description="Only jobs of this kind.")
    status: JobStatusName | None = Field(default=None, description="Only jobs that stand so.")
    starting_after: str | None = Field(default=None, pattern=_JOB_ID, description=AFTER)


class Job(Outgoing):
    """What an operator asked for, and what came of it. It can be looked up for 7 days after it ended."""

    id: str = Field(description="Its id.", pattern=_JOB_ID)
    object: Literal["job"] = Field(description="Always `job`.")
    kind: JobKind = Field(description="What it does: the last part of the path that made it.")
    status: JobStatus = Field(description="`scheduled`: no worker took it up yet; `failed`: `error` says why.")
    params: dict[str, Any] = Field(description="What was asked for.")
    progress: dict[str, Any] | None = Field(description="How far it came; null until there is something to say.")
    result: dict[str, Any] | None = Field(description="What was found and done; null until it is done.")
    error: str | None = Field(description="Why it failed.")
    status_url: str = Field(description="Where to look again.")
    requested_by: str = Field(description="The key that asked for it, or `cli:` and a user.")
    created_at: str = Field(description="When it was asked for (RFC 3339, UTC).")
    started_at: str | None = Field(description="When a worker first took it up.")
    ended_at: str | None = Field(description="When it was over.")


class JobList(ListOf[Job]):
    """A page of jobs."""
