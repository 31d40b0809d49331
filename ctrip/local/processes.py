"""cTrip's own processes as the local stack runs them: each with the environment that its role may hold, and no more."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import requests

from ctrip.database.logins import Login
from ctrip.database.roles import Group
from ctrip.local.children import Program, free_port
from ctrip.local.keys import Keys
from ctrip.local.options import ROOT, plain_environment
from ctrip.local.postgres import as_user

QUEUES = ("listener", "sweeper", "webhook", "email")
LOOPBACK = "127.0.0.0/8,::1/128"
_QUOTAS = dict.fromkeys(("RATE_LIMIT_PER_KEY", "RATE_LIMIT_PER_ADDRESS"), "1000000/minute")
"""Nobody who measures or fuzzes a stack of his own is stopped by them, and they are told as elsewhere."""
_RATES = {"RATE_SOURCES": "static", "STATIC_RATES": "ETH/EUR=2990,ETH/USD=3250,USDC/EUR=0.92,USDC/USD=1"}
"""Prices work without a network; who names sources and a key of his own in the environment gets those."""
_WORKER_GRACE_S = 15.0
_NOISE = ("Worker process is ready", "Stopping worker process", "Shutting down...", "Worker has been shut down")
"""Dramatiq's own lines, which say what the supervisor says already."""


@dataclass(frozen=True)
class Site:
    """What all processes of one stack share. `passed_on` are further variables of cTrip from the caller.

    `database_url` is the owner's; a process of a group connects as the group's user, where `logins` has one.
    """

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    chains_file: Path
    data_dir: Path
    keys: Keys
    api_urls: tuple[str, ...]
    metrics_urls: Mapping[str, str]
    logins: tuple[Login, ...] = ()
    smtp_url: str | None = field(default=None, repr=False)
    coingecko_api_key: str | None = field(default=None, repr=False)
    passed_on: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def api_url(self) -> str:
        """Return where the first of the API's processes is."""
        return self.api_urls[0]

    def environment(self, *secrets: str, group: Group = Group.MIGRATOR) -> dict[str, str]:
        """Return the whole environment of a process that may hold these of the secrets, and none other."""
        user = next((login.user for login in self.logins if login.group is group), None)
        held = {
            "WALLET_XPUB": self.keys.xpub,
            "WALLET_MNEMONIC": self.keys.mnemonic,
            "GAS_KEY": self.keys.gas_key,
            "SECRETS_KEY": self.keys.secrets_key,
            "SMTP_URL": self.smtp_url or "",
            "COINGECKO_API_KEY": self.coingecko_api_key or "",
        }
        ours = {
            "ENV": "development",
            "DATABASE_URL": self.database_url if user is None else as_user(self.database_url, user),
            "REDIS_URL": self.redis_url,
            "CHAINS_FILE": str(self.chains_file),
            **_RATES,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
            **self.passed_on,
        }
        return {**plain_environment(), **ours, **{name: held[name] for name in secrets if held[name]}}

    def metrics_environment(self, name: str) -> dict[str, str]:
        """Return where a process shows its metrics."""
        port = self.metrics_urls[name].rsplit(":", 1)[1].removesuffix("/metrics")
        return {"METRICS_HOST": "127.0.0.1", "METRICS_PORT": port}


def api_urls(first_port: int, count: int) -> tuple[str, ...]:
    """Choose a free port for each process of the API, from `first_port` on."""
    ports, port = [], first_port - 1
    for _ in range(count):
        port = free_port(port + 1)
        ports.append(port)
    return tuple(f"http://127.0.0.1:{port}" for port in ports)


def metrics_urls(first_port: int, *, apis: int = 1) -> dict[str, str]:
    """Choose a free port for each process that shows metrics, from `first_port` on."""
    urls, port = {}, first_port - 1
    workers = [f"worker.{queue}" for queue in QUEUES]
    for name in ("api", *workers, "scheduler", *map(_api_name, range(1, apis))):
        port = free_port(port + 1)
        urls[name] = f"http://127.0.0.1:{port}/metrics"
    return urls


def migration(site: Site) -> Program:
    """Return the migration, which waits for others under a lock of the database and ends by itself."""
    return _program("migration", (sys.executable, "-m", "ctrip.cli", "db", "upgrade"), site.environment(), ready="")


def api(site: Site, number: int = 0) -> Program:
    """Return a process of the HTTP API, the first one unless told otherwise."""
    name, url = _api_name(number), site.api_urls[number]
    host, port = url.removeprefix("http://").split(":")
    server = ("granian", "--interface", "wsgi", "--host", host, "--port", port, "--no-ws", "--log-level", "warning")
    environment = (
        _QUOTAS | site.environment("WALLET_XPUB", "SECRETS_KEY", group=Group.API) | site.metrics_environment(name)
    )
    environment |= {"PUBLIC_URL": site.api_url, "WEBHOOK_ALLOW_CIDRS": LOOPBACK}
    argv = (sys.executable, "-m", *server, "--workers", "1", "--blocking-threads", "4", "wsgi:application")
    return _program(name, argv, environment, ready=url + "/readyz", where=url)


def _api_name(number: int) -> str:
    return f"api.{number + 1}" if number else "api"


def workers(site: Site) -> list[Program]:
    """Return one dramatiq master per queue. Keys reach the sweeper's alone."""
    # The four share one folder of metrics, so that any of their addresses shows them all.
    shared = site.data_dir / "metrics"
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(parents=True)
    secrets = {
        "sweeper": ("WALLET_XPUB", "WALLET_MNEMONIC", "GAS_KEY"),
        "webhook": ("SECRETS_KEY",),
        "email": ("SMTP_URL",),
    }
    programs = []
    for queue in QUEUES:
        name = f"worker.{queue}"
        environment = site.environment(*secrets.get(queue, ()), group=Group.WORKER) | site.metrics_environment(name)
        environment |= {"PROMETHEUS_MULTIPROC_DIR": str(shared), "WORKER_STOP_SECONDS": "8"}
        if queue == "webhook":
            environment |= {"WEBHOOK_ALLOW_CIDRS": LOOPBACK}
        argv = (str(ROOT / "worker.sh"), queue)
        programs.append(_program(name, argv, environment, ready=site.metrics_urls[name], grace_s=_WORKER_GRACE_S))
    return programs


def scheduler(site: Site) -> Program:
    """Return the scheduler."""
    environment = site.environment("COINGECKO_API_KEY", group=Group.WORKER) | site.metrics_environment("scheduler")
    argv = (sys.executable, "-m", "actors.scheduler")
    return _program("scheduler", argv, environment, ready=site.metrics_urls["scheduler"])


def demo(site: Site, *, colours: bool) -> Program:
    """Return the walk of one payment, which ends by itself."""
    argv = [sys.executable, "-m", "ctrip.local.demo", str(site.data_dir / "stack.json")]
    if colours:
        argv.append("--colours")
    environment = {**plain_environment(), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return Program(
        "demo", tuple(argv), environment, is_ready=lambda: True, folder=ROOT, restarts=False, speaks_for_itself=True
    )


def _program(
    name: str, argv: tuple[str, ...], environment: dict[str, str], *, ready: str, where: str = "", grace_s: float = 10.0
) -> Program:
    return Program(
        name,
        argv,
        environment,
        is_ready=lambda: _answers(ready),
        restarts=bool(ready),
        where=where,
        grace_s=grace_s,
        noise=_NOISE,
        folder=ROOT,
    )


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False
