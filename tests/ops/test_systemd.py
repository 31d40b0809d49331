"""ops/systemd: systemd reads it, each process has its own secrets, the commands run and stop as they are written."""

import shlex
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from redis import Redis

from actors import GROUPS, QUEUES, Group
from actors.broker import NAMESPACE
from actors.queues import Queues
from ctrip.context import Context
from ctrip.local.children import free_port
from tests.actors.workers import Master, running
from tests.ops import compose, units
from tests.stack import PORTS
from tests.waiting import wait_until

WORKERS = [f"ctrip-worker@{queue}.service" for queue in QUEUES]
SERVICES = ["ctrip-api.service", *WORKERS, "ctrip-scheduler.service"]
HELD = {"ctrip-api.service": {"wallet_xpub", "secrets_key"}, "ctrip-scheduler.service": {"redis_url"}}
HELD |= {f"ctrip-worker@{group.queue}.service": {"redis_url", *map(str.lower, group.secrets)} for group in GROUPS}


def test_systemd_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    verified = units.verify(tmp_path)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_target_starts_every_service_and_each_belongs_to_it() -> None:
    wanted = " ".join(units.read("ctrip.target")["Unit.Wants"]).split()
    assert sorted(wanted) == sorted(SERVICES)
    for unit in SERVICES:
        assert units.single(unit, "Unit.PartOf") == units.single(unit, "Install.WantedBy") == "ctrip.target"


def user_of(unit: str) -> str:
    """Who a service is to Postgres."""
    return "worker" if unit in WORKERS else unit.removeprefix("ctrip-").removesuffix(".service")


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_gets_the_credentials_of_its_role_as_files(unit: str) -> None:
    loaded = units.credentials(unit)
    assert set(loaded) == {"database_url", *HELD[unit]}
    told = units.environment(unit)
    for name, source in loaded.items():
        of_user = f"_{user_of(unit)}" if name == "database_url" else ""
        assert source == f"/etc/ctrip/secrets/{name}{of_user}"
        assert told[f"{name.upper()}_FILE"] == f"%d/{name}"


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_comes_back_whatever_ended_it_and_may_not_do_what_it_need_not(unit: str) -> None:
    directives = units.read(unit)
    assert directives["Service.Restart"] == ["always"]
    assert directives["Unit.StartLimitIntervalSec"] == ["0"]
    assert directives["Service.KillMode"] == ["mixed"]
    for name in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "ProtectKernelTunables"):
        assert directives[f"Service.{name}"] == ["yes"]
    assert directives["Service.ProtectSystem"] == ["strict"]
    assert directives["Service.CapabilityBoundingSet"] == [""]
    assert directives["Service.User"] == ["ctrip"]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.queue)
def test_whoever_stops_workers_waits_longer_than_they_take(group: Group) -> None:
    needed = group.stop_within.total_seconds() + 5
    assert float(units.single(f"ctrip-worker@{group.queue}.service", "Service.TimeoutStopSec")) >= needed
    container = compose.read()["services"][group.queue]
    assert float(container["stop_grace_period"].removesuffix("s")) >= needed
    assert container["init"] is True


def metrics_port(unit: str) -> str:
    return units.environment(unit)["METRICS_PORT"]


@pytest.mark.infra
def test_the_commands_run_reload_and_stop_as_they_are_written(
    environment: dict[str, str], ctx: Context, redis_client: Redis, tmp_path: Path
) -> None:
    named = ("database_url", "redis_url", "wallet_xpub", "wallet_mnemonic", "gas_key", "secrets_key")
    secrets = {**{name: environment[name.upper()] for name in named}, "smtp_url": "smtp://127.0.0.1:1"}
    settings = {"ENV": "test", "CHAINS_FILE": environment["CHAINS_FILE"], "MAIL_FROM": "shop@example.com"}
    assert len({metrics_port(unit) for unit in SERVICES}) == len(SERVICES)
    ports = {metrics_port(unit): free_port(25_100 + PORTS + 10 * place) for place, unit in enumerate(SERVICES)}
    ports["8000"] = free_port(25_000 + PORTS)
    services = {
        unit: units.service(unit, folder=tmp_path, settings=settings, secrets=secrets, ports=ports) for unit in SERVICES
    }
    with ExitStack() as stack:
        started: dict[str, Master] = {}
        for unit, service in services.items():
            log = tmp_path / f"{unit}.log"
            started[unit] = stack.enter_context(running(*service.command, environment=service.environment, log=log))
        queues = Queues(redis_client, namespace=NAMESPACE, heartbeat_timeout_ms=30_000)
        said = f"see {tmp_path}/*.log"
        wait_until(lambda: all(depth.workers == 1 for depth in queues.depths(QUEUES)), within_s=60, what=said)
        for unit in SERVICES:
            wait_for("ctrip_", f"http://127.0.0.1:{ports[metrics_port(unit)]}/metrics", said)
        wait_for("ok", f"http://127.0.0.1:{ports['8000']}/readyz", said)

        email = started["ctrip-worker@email.service"]
        reload = units.single("ctrip-worker@email.service", "Service.ExecReload")
        subprocess.run(shlex.split(reload.replace("$MAINPID", str(email.process.pid))), check=True)
        wait_until(lambda: email.said.count('"event": "worker_ready"') == 2, within_s=30, what=email.said)

        for master in started.values():
            master.signal(signal.SIGTERM)  # KillMode=mixed: to the first process alone
        for unit, master in started.items():
            assert master.wait(services[unit].stop_within_s) == 0, unit
            assert master.family() == {}, "nothing is left for systemd to kill"


def wait_for(text: str, url: str, said: str) -> None:
    wait_until(lambda: text in answer(url), within_s=30, what=f"{url} answers, {said}")


def answer(url: str) -> str:
    try:
        return requests.get(url, timeout=2).text
    except requests.RequestException:
        return ""
