from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ctrip.domain.dead_letters import Filter, Reason, row_died
from ctrip.domain.queues import QueueSnapshot, snapshot_object
from ctrip.services import dead_letters, queues

pytestmark = pytest.mark.infra
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SNAPSHOT = QueueSnapshot("webhook", 5, 2, 9, 0, 77, 1.5, 3, NOON)


def test_the_newest_snapshot_of_each_queue_is_kept_and_a_late_one_dropped(ctx) -> None:
    other = replace(SNAPSHOT, queue="listener", oldest_ready_age_seconds=None)
    newer = replace(SNAPSHOT, ready=6, taken_at=NOON + timedelta(seconds=3))
    queues.store_snapshots(ctx, [SNAPSHOT, other])
    queues.store_snapshots(ctx, [newer])
    queues.store_snapshots(ctx, [SNAPSHOT])
    assert queues.snapshots(ctx) == [other, newer]


def test_dead_counts_the_letters_that_wait_for_somebody_to_look(ctx) -> None:
    for name in ("whd_a", "whd_b"):
        dead_letters.record(
            ctx,
            row_died(
                queue="webhook",
                actor="send_webhook",
                row_id=name,
                reason=Reason.SCHEDULE,
                exception=None,
                first_at=NOON,
                died_at=NOON,
            ),
        )
    queues.store_snapshots(ctx, [replace(SNAPSHOT, dead=1)])
    assert queues.snapshots(ctx)[0].dead == 3, "two here, one that is still in Redis"
    dead_letters.purge(ctx, Filter(q="whd_a"), by="key_1", dry_run=False)
    queues.store_snapshots(ctx, [replace(SNAPSHOT, taken_at=NOON + timedelta(seconds=3))])
    assert queues.snapshots(ctx)[0].dead == 1, "somebody has looked at the other one"


def test_a_snapshot_reads_as_the_contract_says() -> None:
    assert snapshot_object(SNAPSHOT) == {
        "queue": "webhook",
        "ready": 5,
        "in_flight": 2,
        "delayed": 9,
        "dead": 0,
        "completed_1h": 77,
        "oldest_ready_age_seconds": 1.5,
        "workers": 3,
        "taken_at": "2026-11-22T12:00:00Z",
    }
