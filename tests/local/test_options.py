"""What the environment tells the local stack, and what each of its processes is told."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from ctrip.errors import MisconfiguredError
from ctrip.local import processes
from ctrip.local.children import free_port
from ctrip.local.keys import Keys
from ctrip.local.options import ROOT, read_options
from ctrip.local.processes import Site

KEYS = Keys("the mnemonic", "the xpub", "the gas key", "0x00", "the secrets key")
SECRETS = {"WALLET_MNEMONIC", "GAS_KEY", "SECRETS_KEY", "WALLET_XPUB", "SMTP_URL", "COINGECKO_API_KEY"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(
        database_url="postgresql:///x",
        redis_url="redis://x",
        chains_file=tmp_path / "chains.yaml",
        data_dir=tmp_path,
        keys=KEYS,
        api_urls=("http://127.0.0.1:8000", "http://127.0.0.1:8001"),
        metrics_urls=processes.metrics_urls(29100, apis=2),
        smtp_url="smtp://user:secret@mail",
        coingecko_api_key="CG-key",
        passed_on={"LOG_LEVEL": "DEBUG"},
    )


def test_each_process_is_told_the_secrets_of_its_role_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALLET_MNEMONIC", "another one, of whoever called us")
    programs = [processes.api(site), *processes.workers(site), processes.scheduler(site), processes.migration(site)]
    programs.append(processes.demo(site, colours=False))
    told = {program.name: SECRETS & set(program.environment) for program in programs}
    assert told == {
        "api": {"WALLET_XPUB", "SECRETS_KEY"},
        "worker.listener": set(),
        "worker.sweeper": {"WALLET_XPUB", "WALLET_MNEMONIC", "GAS_KEY"},
        "worker.webhook": {"SECRETS_KEY"},
        "worker.email": {"SMTP_URL"},
        "scheduler": {"COINGECKO_API_KEY"},
        "migration": set(),
        "demo": set(),
    }
    assert programs[2].environment["WALLET_MNEMONIC"] == "the mnemonic"


def test_metrics_have_a_port_of_their_own_each(site: Site) -> None:
    assert len(set(site.metrics_urls.values())) == 7


def test_the_api_has_as_many_processes_as_one_wants_each_at_a_port_of_its_own(site: Site) -> None:
    first, second = (processes.api(site, number) for number in range(2))
    assert (first.name, second.name) == ("api", "api.2")
    assert (first.where, second.where) == site.api_urls
    for named in ("METRICS_PORT", "argv"):
        told = [str(each.argv) if named == "argv" else each.environment[named] for each in (first, second)]
        assert told[0] != told[1]
    assert first.environment["PUBLIC_URL"] == second.environment["PUBLIC_URL"] == site.api_url
    assert read_options(stay=True, environment={"API_PROCESSES": "2"}).api_processes == 2


@pytest.mark.parametrize("count", ["0", "17", "-1", "two", "²"])
def test_a_count_of_processes_that_cannot_be_is_named(count: str) -> None:
    with pytest.raises(MisconfiguredError, match="API_PROCESSES: is no number from 1 to 16"):
        read_options(stay=True, environment={"API_PROCESSES": count})


def test_a_taken_port_gives_the_next_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < free_port(port) < port + 200


def test_each_part_can_be_replaced() -> None:
    given = {"DATABASE_URL": "postgresql://a", "REDIS_URL": "redis://b", "CHAIN_RPC": "http://c", "DATA_DIR": "/d"}
    options = read_options(stay=True, environment=given)
    assert (options.database_url, options.redis_url, options.chain_rpc) == ("postgresql://a", "redis://b", "http://c")
    assert options.data_dir == Path("/d")


def test_the_demo_is_walked_unless_told_otherwise() -> None:
    assert read_options(stay=True, environment={"A": "1"}).walk
    assert not read_options(stay=True, environment={"NO_DEMO": "1"}).walk
    assert read_options(stay=True, environment={"NO_DEMO": ""}).walk


def test_data_are_kept_in_the_checkout_unless_told_otherwise() -> None:
    assert read_options(stay=True, environment={"A": "1"}).data_dir == ROOT / ".data"


def test_a_port_that_is_no_number_is_named() -> None:
    with pytest.raises(MisconfiguredError, match="CHAIN_PORT: is no number"):
        read_options(stay=True, environment={"CHAIN_PORT": "x"})


def test_prices_work_without_a_network_unless_other_sources_are_named(site: Site) -> None:
    told = processes.scheduler(site).environment
    assert told["RATE_SOURCES"] == "static"
    assert told["STATIC_RATES"].count("=") == 4
    given = {"RATE_SOURCES": "kraken", "COINGECKO_API_KEY": "CG-key", "QUOTE_SECONDS": "60"}
    options = read_options(stay=True, environment=given)
    assert options.passed_on == {"RATE_SOURCES": "kraken", "QUOTE_SECONDS": "60"}
    assert options.coingecko_api_key == "CG-key"
    named = processes.api(replace(site, passed_on=options.passed_on)).environment
    assert (named["RATE_SOURCES"], "COINGECKO_API_KEY" in named) == ("kraken", False)
