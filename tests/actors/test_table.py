"""The table of actors says what is really declared."""

import importlib
import inspect
from datetime import timedelta

import pytest

from actors import QUEUES, TABLE, Rule
from actors.broker import broker

MODULES = {"listener": "actors.listener", "sweeper": "actors.sweeper", "webhook": "actors.webhook"}


def declared(rule: Rule):
    importlib.import_module(MODULES[rule.queue])
    return broker.actors[rule.actor]


def test_every_queue_has_a_module_of_its_own_that_declares_it() -> None:
    for queue in QUEUES:
        importlib.import_module(f"actors.{queue}")
        assert queue in broker.get_declared_queues()


def test_no_actor_is_missing_in_the_table() -> None:
    for queue in QUEUES:
        importlib.import_module(f"actors.{queue}")
    assert {(actor.actor_name, actor.queue_name) for actor in broker.actors.values()} == {
        (rule.actor, rule.queue) for rule in TABLE
    }


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.actor)
def test_an_actor_runs_by_its_rule(rule: Rule) -> None:
    options = declared(rule).options
    assert timedelta(milliseconds=options["time_limit"]) == rule.time_limit
    assert options["max_retries"] == rule.retries == 3
    waits = (min(2 * rule.first_wait * 2**number, rule.longest_wait) for number in range(rule.retries))
    longest = sum(waits, timedelta(0))
    assert longest < timedelta(minutes=1), "all retries fit in a minute"


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.actor)
def test_an_actor_makes_the_one_service_call_that_its_rule_names(rule: Rule) -> None:
    module_name, function = rule.service.split(".")
    service = importlib.import_module(f"ctrip.services.{module_name}")
    assert callable(getattr(service, function))
    source = inspect.getsource(declared(rule).fn)
    assert source.count(f"{module_name}.{function}(context(), ") == 1
    assert source.count("context()") == 1
