"""New heads wake the listener: what an endpoint tells over WebSocket makes the chain's loop due.

Polling alone is enough; this only makes it quicker. So nothing here is kept, and what is lost costs a poll's time.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from ctrip import metrics
from ctrip.blockchain.heads import HeadStream, Patience
from ctrip.blockchain.transport import labels_of
from ctrip.context import Context
from ctrip.database import cursors, loops
from ctrip.domain.loops import LoopKind

SILENT_AT_LEAST = timedelta(seconds=60)
SILENT_POLLS = 10
"""A connection that tells no head for so long, and for so many polls of its chain, is made anew."""


class Woken(StrEnum):
    """What a head did to its chain's loop."""

    DUE = "due"  # send its message
    BUSY = "busy"  # a run is at work, which may have asked for the head before this one was there: try again
    READ = "read"  # nothing: this block was read already, or the loop does not exist, or is paused


@dataclass(frozen=True)
class Source:
    """One URL that tells the heads of a chain."""

    chain_id: int
    stream: HeadStream


def sources(ctx: Context) -> list[Source]:
    """Return a source for each WebSocket URL of the enabled chains; nothing is dialled yet."""
    found = []
    for chain in ctx.settings.chains:
        patience = Patience(silent_s=max(SILENT_AT_LEAST, SILENT_POLLS * chain.poll).total_seconds())
        for url, label in zip(chain.ws_urls, labels_of(chain.ws_urls), strict=True) if chain.enabled else ():
            stream = HeadStream(url, label=label, chain=chain.name, patience=patience)
            connected = metrics.HEADS_CONNECTED.labels(chain=chain.name, endpoint=stream.label)
            stream.tell = connected.set
            connected.set(0)
            metrics.HEADS.labels(chain=chain.name)  # shown from its start, at zero
            found.append(Source(chain.chain_id, stream))
    return found


def follow(source: Source, stopping: threading.Event) -> Iterator[int]:
    """Yield the numbers of new blocks until `stopping` is set, through every loss of the connection."""
    for number in source.stream.follow(stopping):
        metrics.HEADS.labels(chain=source.stream.chain).inc()
        yield number


def wake(ctx: Context, chain_id: int, number: int) -> Woken:
    """Make a chain's listener due, where it has not read block `number` yet. Never waits for a run that is at work."""
    name = loops.loop_name(LoopKind.LISTENER, chain_id)
    with ctx.sessions.begin() as session:
        cursor = cursors.find(session, chain_id)
        if cursor is not None and (cursor.read_block >= number or cursor.stopped_reason is not None):
            return Woken.READ
        if loops.wake(session, name):
            return Woken.DUE
        loop = loops.find(session, name)
    return Woken.READ if loop is None or not loop.enabled else Woken.BUSY
