"""Queue snapshots: the scheduler stores them, the API and the CLI show them; neither of those knows Redis."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ctrip.context import Context
from ctrip.database import dead_letters, queues
from ctrip.domain.queues import QueueSnapshot


def store_snapshots(ctx: Context, snapshots: Sequence[QueueSnapshot]) -> None:
    """Store what the queues look like in Redis, the dead letters that are kept here added."""
    with ctx.sessions.begin() as session:
        dead: Counter[str] = Counter()
        for (queue, _), count in dead_letters.count_open(session).items():
            dead[queue] += count
        whole = [replace(snapshot, dead=snapshot.dead + dead[snapshot.queue]) for snapshot in snapshots]
        queues.store(session, whole)


def snapshots(ctx: Context) -> list[QueueSnapshot]:
    """Return the newest snapshot of each queue. `taken_at` says how old it is: with Redis away it stays what it was."""
    with ctx.sessions.begin() as session:
        return queues.find_all(session)
