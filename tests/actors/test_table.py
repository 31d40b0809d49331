"""The table says what workers there are, what they may hold, and what is really declared for them."""

import importlib
import inspect
import subprocess
import sys
from datetime import timedelta

import pytest

from actors import GROUPS, JOBS, QUEUES, SECRETS, SEND_EMAIL, TABLE, Group, Rule
from actors.broker import broker
from ctrip import bootstrap
from ctrip.domain import emails, jobs
from ctrip.settings import Role, load_settings
from tests.conftest import GAS_KEY, MNEMONIC, ROOT, SECRETS_KEY, XPUB

ENVIRONMENT = {
    "ENV": "test",
    "DATABASE_URL": "postgresql://127.0.0.1/ctrip",
    "CHAINS_FILE": str(ROOT / "chains.yaml"),
    "WALLET_XPUB": XPUB,
    "WALLET_MNEMONIC": MNEMONIC,
    "GAS_KEY": GAS_KEY,
    "SECRETS_KEY": SECRETS_KEY,
    "SMTP_URL": "smtp://user:password@127.0.0.1",
    "MAIL_FROM": "shop@example.com",
    "COINGECKO_API_KEY": "CG-key",
}


def declared(rule: Rule):
    importlib.import_module(f"actors.{rule.queue}")
    return broker.actors[rule.actor]


# --- groups of workers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.queue)
def test_a_group_holds_the_secrets_that_its_role_reads_and_no_other(group: Group) -> None:
    settings = load_settings(Role(group.queue), ENVIRONMENT)
    read = {
        "WALLET_XPUB": settings.wallet_xpub,
        "WALLET_MNEMONIC": settings.wallet_mnemonic,
        "GAS_KEY": settings.gas_key,
        "SECRETS_KEY": settings.secrets_keys,
        "SMTP_URL": settings.smtp_url,
        "COINGECKO_API_KEY": settings.rates.coingecko_api_key,
    }
    assert set(read) == set(SECRETS)
    assert set(group.secrets) == {name for name, value in read.items() if value}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.queue)
def test_a_group_starts_and_stops_with_what_the_table_names(group: Group) -> None:
    assert (group.on_start, group.on_stop) == ("bootstrap.bootstrap", "bootstrap.shut_down")
    used = inspect.getsource(importlib.import_module("actors.broker"))
    for name in ("bootstrap", "shut_down"):
        assert callable(getattr(bootstrap, name))
        assert used.count(f" {name}(") == 1


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.actor)
def test_what_cannot_be_taken_back_is_over_before_a_stop_cuts_it_off(rule: Rule) -> None:
    (group,) = (group for group in GROUPS if group.queue == rule.queue)
    if group.queue in ("webhook", "email"):
        assert rule.time_limit < group.stop_within


def test_worker_sh_reads_the_table_without_loading_what_workers_need() -> None:
    program = "import sys; from actors.groups import main; main(['email']); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    *told, loaded = ran.stdout.splitlines()
    assert told[0] == "queues=(email)"
    for group in GROUPS:
        assert f"processes[{group.queue}]={group.processes}" in told
        assert f"threads[{group.queue}]={group.threads}" in told
        assert f"stop_seconds[{group.queue}]={group.stop_within.seconds}" in told
    assert not {"dramatiq", "redis", "sqlalchemy", "structlog", "eth_utils"} & set(loaded.split())


# --- actors ---------------------------------------------------------------------------------------------------------


def test_every_queue_has_a_module_of_its_own_that_declares_it() -> None:
    for queue in QUEUES:
        importlib.import_module(f"actors.{queue}")
        assert queue in broker.get_declared_queues()


def test_no_actor_is_missing_in_the_table() -> None:
    for queue in QUEUES:
        importlib.import_module(f"actors.{queue}")
    # Other tests declare actors of their own beside ours.
    ours = [actor for actor in broker.actors.values() if actor.fn.__module__.startswith("actors.")]
    assert {(actor.actor_name, actor.queue_name) for actor in ours} == {(rule.actor, rule.queue) for rule in TABLE}


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.actor)
def test_an_actor_runs_by_its_rule(rule: Rule) -> None:
    options = declared(rule).options
    assert timedelta(milliseconds=options["time_limit"]) == rule.time_limit
    assert (options["max_retries"], rule.tries) == (rule.retries, 4)
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


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.actor)
def test_a_result_is_kept_as_long_as_its_row_is(rule: Rule) -> None:
    kept = {SEND_EMAIL: emails.KEPT, **dict.fromkeys(JOBS, jobs.KEPT)}
    assert rule.result_kept == kept.get(rule)
