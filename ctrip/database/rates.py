"""Rates as their sources told them, and which source is asked when. The database's clock decides what is due."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.models import rate_sources, rates
from ctrip.domain.chains import Token
from ctrip.domain.rates import Pair, Told

_of, _source = rates.c, rate_sources.c


@dataclass(frozen=True)
class SourceState:
    """How a source does: since when it does not tell all that it is asked for, and its last fault; None: it does."""

    next_ask_at: datetime
    failing_since: datetime | None
    last_error: str | None


def read(session: Connection, asset: Token, currency: str) -> list[Told]:
    """Return what the sources that know an asset told of it in a currency, however old: `agree` looks at that."""
    names = list(asset.rate_names.items())
    query = sa.select(_of.source, _of.rate, _of.as_of).where(
        sa.tuple_(_of.source, _of.base).in_(names), _of.currency == currency
    )
    return [Told(*row) for row in session.execute(query)] if names else []


def find_all(session: Connection) -> dict[tuple[str, Pair], Told]:
    """Return every word, by its source and what it is about."""
    rows = session.execute(sa.select(_of.source, _of.base, _of.currency, _of.rate, _of.as_of))
    return {(row.source, Pair(row.base, row.currency)): Told(row.source, row.rate, row.as_of) for row in rows}


def find_sources(session: Connection) -> dict[str, SourceState]:
    """Return how each source does that was ever asked."""
    rows = session.execute(sa.select(rate_sources))
    return {row.source: SourceState(row.next_ask_at, row.failing_since, row.last_error) for row in rows}


def claim(session: Connection, sources: Collection[str], *, every: timedelta) -> dict[str, datetime]:
    """Take those sources, of one or more, that are due, each for one caller alone; they are due again in `every`.

    Returns when each was taken, which is when all that it tells now was asked. A crash costs one round.
    """
    # In one order: two schedulers lock these rows one after the other.
    taken = pg.insert(rate_sources).values(
        [{"source": source, "next_ask_at": sa.func.now() + every} for source in sorted(sources)]
    )
    due = taken.on_conflict_do_update(
        index_elements=[_source.source],
        set_={"next_ask_at": taken.excluded.next_ask_at},
        where=_source.next_ask_at <= sa.func.now(),
    )
    rows = session.execute(due.returning(_source.source, sa.func.now()))
    return {source: asked_at for source, asked_at in rows}


def store(session: Connection, told: Mapping[Pair, Told], *, asked_at: datetime) -> None:
    """Keep what a source told, each pair once. An answer to an earlier question, which came late, changes nothing."""
    if not told:
        return
    rows = [
        {
            "source": word.source,
            "base": pair.base,
            "currency": pair.currency,
            "rate": word.rate,
            "as_of": word.as_of,
            "asked_at": asked_at,
        }
        for pair, word in told.items()
    ]
    statement = pg.insert(rates).values(rows)
    new = statement.excluded
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[_of.source, _of.base, _of.currency],
            set_={"rate": new.rate, "as_of": new.as_of, "asked_at": new.asked_at},
            where=_of.asked_at <= new.asked_at,
        )
    )


def note(session: Connection, source: str, *, error: str | None, wait: timedelta) -> str | None:
    """Write down how a round ended: `error` is what the source did not tell, or why. It rests for `wait` at least.

    Returns the error of the round before.
    """
    this = _source.source == source
    before: str | None = session.scalar(sa.select(_source.last_error).where(this).with_for_update())
    since = None if error is None else sa.func.coalesce(_source.failing_since, sa.func.now())
    rest_until = sa.func.greatest(_source.next_ask_at, sa.func.now() + wait)
    changed = sa.update(rate_sources).where(this)
    session.execute(changed.values(failing_since=since, last_error=error, next_ask_at=rest_until))
    return before


def forget(session: Connection, asked: Mapping[str, Collection[Pair]]) -> int:
    """Delete what nobody is asked for any more. Returns how many rows."""
    kept = [(source, pair.base, pair.currency) for source, pairs in asked.items() for pair in pairs]
    useless = sa.tuple_(_of.source, _of.base, _of.currency).not_in(kept)
    gone = session.execute(sa.delete(rates).where(useless))
    unasked = session.execute(sa.delete(rate_sources).where(_source.source.not_in(list(asked))))
    return gone.rowcount + unasked.rowcount
