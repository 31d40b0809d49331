"""The API under kill -9, its own and that of Postgres: SEEDS=1,2,3 tells these seeds, MINUTES=10 more."""

import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from tests.chaos.api_story import receiving, tell_bursts, tell_load
from tests.chaos.ledger import Ledger
from tests.chaos.test_faults import seeds
from tests.stack import RunningStack

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def apis(anvil_binary: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """All of cTrip with two processes of the API, each at an address of its own."""
    folder = tmp_path_factory.mktemp("apis") / "data"
    stack = RunningStack(folder, NO_DEMO="1", API_PROCESSES="2", MAX_OPEN_PAYMENTS="1000000")
    stack.start()
    try:
        stack.wait_ready()
        yield stack
    finally:
        exit_code = stack.stop()
    assert exit_code == 0


@pytest.fixture(scope="module")
def hook(apis: RunningStack) -> Iterator[str]:
    with receiving(apis) as url:
        yield url


def tell(story: Callable[[int], Ledger]) -> None:
    deadline = time.monotonic() + 60 * float(os.environ.get("MINUTES") or 0)
    told = seeds()
    while told:
        seed, began = told.pop(0), time.monotonic()
        print(f"seed {seed}")  # noqa: T201
        story(seed)
        print(f"seed {seed} took {time.monotonic() - began:.0f} s")  # noqa: T201
        if not told and time.monotonic() < deadline:
            told = [random.randrange(10**6)]


def test_1000_keys_that_16_use_at_once_make_one_payment_each_though_the_api_dies(apis: RunningStack, hook: str) -> None:
    tell(lambda seed: tell_bursts(apis, hook, seed=seed, keys=1000, kills=20))


def test_50_deaths_of_the_api_and_4_of_postgres_lose_nothing_that_was_acknowledged(
    apis: RunningStack, hook: str
) -> None:
    tell(lambda seed: tell_load(apis, hook, seed=seed, api_kills=50, postgres_kills=4))
