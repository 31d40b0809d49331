"""Three short seeds of two nodes that fail and lie; `make test-chaos` tells 200 (tests/chaos/test_lies.py)."""

from pathlib import Path

import pytest
from redis import Redis

from ctrip.database.engine import Sessions
from tests.chaos.lies import tell
from tests.chaos.town import build_town

pytestmark = pytest.mark.infra
SEEDS = (1, 2, 12)
SECONDS = 4.0


def test_deposits_are_credited_once_whatever_the_nodes_say(
    sessions: Sessions, redis_client: Redis, postgres_url: str, redis_url: str, anvil_binary: Path, tmp_path: Path
) -> None:
    with build_town(
        len(SEEDS), anvil=anvil_binary, database_url=postgres_url, redis_url=redis_url, folder=tmp_path
    ) as town:
        group = town.group("group")
        try:
            town.settle(group)
            tell(town, group, SEEDS, seconds=SECONDS)
        finally:
            group.kill()
