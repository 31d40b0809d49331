from collections.abc import Callable, Iterator
from pathlib import Path

import dramatiq
import pytest
from dramatiq.middleware import Middleware
from redis import Redis

from actors.hardened import HardenedBroker
from actors.queues import Queues
from ctrip.database.roles import Group
from ctrip.local.children import spawn, stop
from ctrip.local.redis import embedded_redis
from tests.actors.workers import OWN_PORTS
from tests.conftest import url_of
from tests.waiting import wait_until

NAMESPACE = "test"
MakeBroker = Callable[..., HardenedBroker]


@pytest.fixture(scope="session")
def environment(owners_environment: dict[str, str]) -> dict[str, str]:
    """That of workers and the scheduler, which connect as members of ctrip_worker."""
    return owners_environment | {"DATABASE_URL": url_of(Group.WORKER, owners_environment["DATABASE_URL"])}


@pytest.fixture
def make_broker(redis_url: str, redis_client: Redis) -> MakeBroker:
    """Build a broker with this middleware on the emptied Redis."""

    def make(*middleware: Middleware) -> HardenedBroker:
        broker = HardenedBroker(namespace=NAMESPACE, middleware=list(middleware))
        broker.connect(redis_url)
        dramatiq.set_broker(broker)
        return broker

    return make


@pytest.fixture
def queues(redis_client: Redis) -> Queues:
    return Queues(redis_client, namespace=NAMESPACE, heartbeat_timeout_ms=30_000)


class OwnRedis:
    """A Redis that a test may stop and start; what is in it outlives that."""

    def __init__(self, folder: Path) -> None:
        self._program, self.url = embedded_redis(folder, port=OWN_PORTS)
        self._log = folder / "valkey.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as output:
            self.child = spawn(self._program, output=output)
        wait_until(self._program.is_ready, within_s=20, what="valkey is ready")

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()

    def stop(self) -> None:
        stop(self.child, self._program)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    own = OwnRedis(tmp_path / "valkey")
    yield own
    own.stop()
