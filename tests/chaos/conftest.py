"""Parts for the tests that let nodes lie and machines die."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from ctrip.database.engine import Sessions
from tests.chaos.town import Town, build_town

STREETS = 4


@pytest.fixture
def town(
    sessions: Sessions, redis_client: Redis, postgres_url: str, redis_url: str, anvil_binary: Path, tmp_path: Path
) -> Iterator[Town]:
    with build_town(
        STREETS, anvil=anvil_binary, database_url=postgres_url, redis_url=redis_url, folder=tmp_path
    ) as town:
        yield town
