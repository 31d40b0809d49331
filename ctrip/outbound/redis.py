"""Redis as the API sees it: whether it answers. What it is used for is the actors' affair."""

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

TIMEOUT_S = 0.5


def answers(redis_url: str) -> bool:
    """Return whether Redis answers a PING within TIMEOUT_S for the dialling and as long again for the answer."""
    client = Redis.from_url(
        redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
    )
    try:
        return bool(client.ping())
    except RedisError:
        return False
    finally:
        client.close()
