"""Jobs: what an operator asked for, done by an actor while the operator watches its row.

scheduled ──claimed──> running ──> done (result) | failed (error)
failed by an exception ──replay of its dead letter──> scheduled
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from ctrip.domain.times import timestamp

KEPT = timedelta(days=7)
"""How long a job can be looked up after it ended."""
LONGEST = timedelta(hours=1)
"""A job that is not over so long after it was first taken up ends failed: somebody waits for its answer."""
MOST_OPEN = 100
"""How many jobs of one kind may wait or run at once: more is a program gone wild, and must not shut out the others."""
ERROR_CHARACTERS = 500


class JobKind(StrEnum):
    """What can be asked for; also the last part of its path below /admin."""

    SCAN_NOW = "scan-now"
    SWEEP_NOW = "sweep-now"
    SWEEP_ADDRESS = "sweep-address"
    PROCESS_PAYMENT = "process-payment"
    BACKFILL = "backfill"
    SEND_WEBHOOK = "send-webhook"
    CUSTOM_WEBHOOK = "custom-webhook"

    @property
    def actor(self) -> str:
        """The actor that does it."""
        return f"job_{self.replace('-', '_')}"


OF_A_CHAIN = (JobKind.SCAN_NOW, JobKind.SWEEP_NOW, JobKind.SWEEP_ADDRESS, JobKind.PROCESS_PAYMENT, JobKind.BACKFILL)
"""The kinds whose params name a `chain_id`."""


class JobStatus(StrEnum):
    """Where a job stands."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


Facts = Mapping[str, Any]
"""What stands in a job's params, progress and result: names and values as JSON has them."""


@dataclass(frozen=True)
class Job:
    """A job's row. `started_at` is when it was first taken up, `requested_by` a key's id or `cli:USER`."""

    id: str
    kind: JobKind
    params: Facts
    status: JobStatus
    progress: Facts | None
    result: Facts | None
    error: str | None
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True)
class Done:
    """The job did what it was for."""

    result: Facts


@dataclass(frozen=True)
class Failed:
    """The job cannot do what it was for, and says why."""

    error: str


@dataclass(frozen=True)
class Later:
    """The job goes on after a while, from `progress`."""

    after: timedelta
    progress: Facts


Outcome = Done | Failed | Later
"""What one run of a job comes to."""


def overdue() -> Failed:
    """Say that a job took too long."""
    minutes = LONGEST // timedelta(minutes=1)
    return Failed(f"it was not over after {minutes} minutes; its progress says how far it came")


def job_object(job: Job) -> dict[str, object]:
    """Render a job as operators see it."""
    return {
        "id": job.id,
        "object": "job",
        "kind": str(job.kind),
        "status": str(job.status),
        "params": job.params,
        "progress": job.progress,
        "result": job.result,
        "error": job.error,
        "status_url": f"/admin/jobs/{job.id}",
        "requested_by": job.requested_by,
        "created_at": timestamp(job.created_at),
        "started_at": job.started_at and timestamp(job.started_at),
        "ended_at": job.ended_at and timestamp(job.ended_at),
    }
