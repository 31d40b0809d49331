"""A webhook office on an emptied database, and a sink that takes what it brings."""

from collections.abc import Iterator

import pytest

from ctrip.database.engine import Sessions
from tests.services.office import Office, open_office
from tests.sink import Sink


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
