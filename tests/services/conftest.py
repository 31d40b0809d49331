"""A webhook office on an emptied database, and a sink that takes what it brings."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from ctrip.database import schema
from ctrip.database.engine import Sessions, make_engine
from ctrip.database.logins import Login
from ctrip.database.roles import Group
from tests.services.office import Office, open_office
from tests.sink import Sink

AS_OWNER = {"test_creating", "test_payments", "test_prices", "test_merchants", "test_dead_letters_in_bulk"}
"""Tests of what the API does, and of what only an owner can prepare. All others run as workers do."""
PREPARES = (
    "GRANT INSERT ON merchants, api_keys, payments, deposit_addresses, idempotency_keys, webhook_endpoints TO {}",
    "GRANT UPDATE ON merchants, payments, deposit_addresses, events, webhook_endpoints, webhook_attempts,"
    " sweep_attempts, idempotency_keys TO {}",
    "GRANT DELETE ON transfers, chain_cursors, loops TO {}",
    "GRANT SELECT ON api_keys TO {}",
    "GRANT USAGE, UPDATE ON SEQUENCE deposit_index TO {}",
    "GRANT pg_read_all_stats TO {}",
)
"""What tests do that no worker does: they write what others write, and break rows to see that mended."""


@pytest.fixture(scope="session")
def worker_engine(engine: sa.Engine) -> Iterator[sa.Engine]:
    """What the workers and the scheduler may do in Postgres, and what their tests prepare; no more."""
    user = Login("a_worker_who_prepares", Group.WORKER)
    schema.make_logins(engine, [user])
    with engine.begin() as connection:
        connection.exec_driver_sql("; ".join(PREPARES).format(*[user.user] * len(PREPARES)))
    url = engine.url.set(username=user.user)
    worker_engine = make_engine(url, process="tests", pool_size=20)  # type: ignore[arg-type]
    yield worker_engine
    worker_engine.dispose()


@pytest.fixture
def sessions(sessions: Sessions, worker_engine: sa.Engine, request: pytest.FixtureRequest) -> Sessions:
    """Those of a worker, on the emptied database."""
    module = request.module.__name__.rpartition(".")[2]
    return sessions if module in AS_OWNER else Sessions(worker_engine)


@pytest.fixture
def office(sessions: Sessions) -> Office:
    return open_office(sessions)


@pytest.fixture(scope="session")
def standing_sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def sink(standing_sink: Sink) -> Sink:
    """A sink that has received nothing yet and takes everything."""
    standing_sink.received.clear()
    standing_sink.answer = lambda _: 200
    return standing_sink
