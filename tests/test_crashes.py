"""A short seed of each story of an API that is killed; tests/chaos/test_api.py tells the long ones."""

from collections.abc import Iterator

import pytest

from tests.chaos.api_story import receiving, tell_bursts, tell_load
from tests.stack import RunningStack

pytestmark = pytest.mark.infra


@pytest.fixture(scope="module")
def hook(stack: RunningStack) -> Iterator[str]:
    with receiving(stack) as url:
        yield url


def test_deaths_of_the_api_and_of_postgres_lose_nothing_that_was_acknowledged(stack: RunningStack, hook: str) -> None:
    tell_load(stack, hook, seed=5, api_kills=3, postgres_kills=1)


def test_keys_that_16_use_at_once_make_one_payment_each_though_the_api_dies(stack: RunningStack, hook: str) -> None:
    tell_bursts(stack, hook, seed=1, keys=40, kills=1)
