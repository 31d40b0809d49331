"""Brings the whole local stack up, shows one payment, keeps it up, and takes it down again.

keys -> postgres, valkey, dev chain side by side -> test token, chains.yaml -> migration -> merchant and keys
     -> api, workers, scheduler side by side -> stack.json -> the demo -> Ctrl-C
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ctrip.bootstrap import bootstrap, open_database
from ctrip.database import schema
from ctrip.domain.addresses import checksum_address, parse_address
from ctrip.domain.chains import Chain
from ctrip.local import processes
from ctrip.local.chain_setup import DevChainSetup, check_past, set_up_chain
from ctrip.local.console import Console
from ctrip.local.credentials import Credentials, keep_credentials
from ctrip.local.files import write_private, write_private_json
from ctrip.local.keys import keep_keys
from ctrip.local.node import DevNode
from ctrip.local.options import PRICES, Options
from ctrip.local.parts import choose_parts
from ctrip.local.processes import Site
from ctrip.local.supervisor import StartFailed, Supervisor
from ctrip.settings import Role
from ctrip.settings.chains import read_chains

_MIGRATION_WITHIN_S = 120.0
_DEMO_WITHIN_S = 180.0
_PARTS = ("postgres", "valkey", "anvil", "py-evm")


def run(options: Options, console: Console, *, lock: int) -> int:
    """Run the stack until it is told to end; return the exit code. Raises MisconfiguredError and StartFailed.

    `lock` is the descriptor that data_dir.held gives: every child inherits it.
    """
    console.is_brief = True
    supervisor = Supervisor(console, held_open=(lock,))
    stack_file = options.data_dir / "stack.json"
    stack_file.unlink(missing_ok=True)  # one that a killed supervisor left behind
    with _signals(supervisor) as interrupts:
        try:
            return _life(options, console, supervisor)
        except StartFailed:
            console.tell_held_back()
            raise
        except (KeyboardInterrupt, BrokenPipeError):
            console.say("\nstopping; once more kills")
            return 0 if options.stay else 130
        finally:
            interrupts.kill = True
            stack_file.unlink(missing_ok=True)
            _take_down(supervisor, console)


def _life(options: Options, console: Console, supervisor: Supervisor) -> int:
    begun = time.monotonic()
    site, credentials, chain = _bring_up(options, console, supervisor)
    console.title(f"ready after {time.monotonic() - begun:.1f} s\n")
    _show(site, credentials, chain, console)
    code = 0
    if options.walk:
        console.title("\none payment, from POST to settled")
        code = supervisor.run(processes.demo(site, colours=console.colours), within_s=_DEMO_WITHIN_S)
    if code != 0:
        console.say("\nwhat the processes said:")
        console.tell_held_back()
    if options.stay:
        console.title("\nup until Ctrl-C; what the processes say:\n")
        console.is_brief = False
        supervisor.watch()
    return code


def _bring_up(options: Options, console: Console, supervisor: Supervisor) -> tuple[Site, Credentials, DevChainSetup]:
    keys = keep_keys(options.data_dir / "keys.json")
    parts = choose_parts(options, console)
    supervisor.start(parts.programs)
    begun = time.monotonic()
    node = DevNode(parts.chain_rpc)
    chains_file = parts.folder / "chains.yaml"
    chain = set_up_chain(node, chains_file=chains_file, gas_wallet=parse_address(keys.gas_wallet))
    console.step("test token", time.monotonic() - begun, f"USDC at {checksum_address(chain.usdc)}")
    site = Site(
        database_url=parts.database_url,
        redis_url=parts.redis_url,
        chains_file=chains_file,
        data_dir=options.data_dir,
        keys=keys,
        api_urls=processes.api_urls(options.api_port, options.api_processes),
        metrics_urls=processes.metrics_urls(options.metrics_port, apis=options.api_processes),
        logins=parts.logins,
        smtp_url=options.smtp_url,
        coingecko_api_key=options.coingecko_api_key,
        passed_on=options.passed_on,
    )
    _migrate(site, console, supervisor)
    credentials = _prepare(site, node, chain)
    apis = [processes.api(site, number) for number in range(options.api_processes)]
    supervisor.start([*apis, *processes.workers(site), processes.scheduler(site)])
    _announce(site, chain, credentials, supervisor)
    return site, credentials, chain


def _migrate(site: Site, console: Console, supervisor: Supervisor) -> None:
    begun = time.monotonic()
    _, engine = open_database(Role.CLI, _quietly(site))
    with engine.connect() as connection:
        is_current = schema.stored_revision(connection) == schema.shipped_revision()
    if not is_current and supervisor.run(processes.migration(site), within_s=_MIGRATION_WITHIN_S) != 0:
        raise StartFailed("the migration of the database failed; its lines are above")
    schema.make_logins(engine, site.logins)
    engine.dispose()
    console.step("migration", time.monotonic() - begun, f"schema {schema.shipped_revision()}")


def _prepare(site: Site, node: DevNode, chain: DevChainSetup) -> Credentials:
    """Compare the chain with what was read of it, and see that the demo merchant is in the database."""
    ctx = bootstrap(Role.CLI, _quietly(site))
    try:
        with ctx.sessions.begin() as session:
            check_past(session, node, chain.chain_id, data_dir=site.data_dir)
        return keep_credentials(ctx, site.chains_file.with_name("credentials.json"))
    finally:
        ctx.sessions.engine.dispose()


def _quietly(site: Site) -> dict[str, str]:
    return site.environment("SECRETS_KEY") | {"LOG_LEVEL": "WARNING"}


def _announce(site: Site, chain: DevChainSetup, credentials: Credentials, supervisor: Supervisor) -> None:
    """Write stack.json, and again after each restart; and `env`, for the `ctrip` command beside a running stack."""
    environment = site.environment("WALLET_XPUB", "SECRETS_KEY")
    names = ("ENV", "DATABASE_URL", "REDIS_URL", "CHAINS_FILE", "WALLET_XPUB", "SECRETS_KEY")
    told = [*names, *(name for name in PRICES if name in environment)]
    write_private(site.data_dir / "env", "".join(f"export {name}='{environment[name]}'\n" for name in told))
    fixed = {
        "api": site.api_url,
        "apis": list(site.api_urls),
        "api_key": credentials.api_key,
        "admin_key": credentials.admin_key,
        "webhook_secret": credentials.webhook_secret,
        "chain_rpc": chain.rpc_url,
        "chain": chain.name,
        "chain_id": chain.chain_id,
        "tokens": _tokens(read_chains(site.chains_file)[0]),
        "treasury": checksum_address(chain.treasury),
        "faucet": checksum_address(chain.faucet),
        "database_url": site.database_url,
        "redis_url": site.redis_url,
        # The workers share one folder of counters, so that the listener's address shows them all.
        "metrics": {**site.metrics_urls, "worker": site.metrics_urls["worker.listener"]},
    }

    def write() -> None:
        pids = supervisor.pids()
        ours = {name: pid for name, pid in pids.items() if name not in _PARTS}
        parts = {name: pid for name, pid in pids.items() if name in _PARTS}
        write_private_json(
            site.data_dir / "stack.json", {**fixed, "supervisor": os.getpid(), "pids": ours, "parts": parts}
        )

    write()
    supervisor.on_restart = write


def _tokens(chain: Chain) -> list[dict[str, Any]]:
    return [
        {"symbol": token.symbol, "address": checksum_address(token.address), "decimals": token.decimals}
        for token in chain.tokens
        if not token.is_native
    ]


def _show(site: Site, credentials: Credentials, chain: DevChainSetup, console: Console) -> None:
    console.say(f"  API         {site.api_url}   reference {site.api_url}/docs")
    console.say(f"  API key     {credentials.api_key}")
    console.say(f"  dev chain   {chain.rpc_url}   chain id {chain.chain_id}, faucet {checksum_address(chain.faucet)}")
    console.say(f"  everything  {site.data_dir / 'stack.json'}   for the ctrip command: . {site.data_dir / 'env'}")
    console.say("\n  a payment of your own:")
    console.say(f"  curl -s {site.api_url}/api/v1/payments -H 'Authorization: Bearer {credentials.api_key}' \\")
    body = f'{{"chain": "{chain.name}", "token": "USDC", "amount": "12.50"}}'
    console.say(f"    -H 'Content-Type: application/json' -d '{body}'")


def _take_down(supervisor: Supervisor, console: Console) -> None:
    begun = time.monotonic()
    names = supervisor.pids()
    # First those that use the parts, so that none of them sees a part go.
    supervisor.stop(*(name for name in names if name not in _PARTS))
    supervisor.stop(*(name for name in names if name in _PARTS))
    console.title(f"stopped in {time.monotonic() - begun:.1f} s")


class _Interrupts:
    """The first signal ends the stack's life; once `kill` is on, another one kills all children."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.kill = False

    def __call__(self, _: int, __: FrameType | None) -> None:
        if self.kill:
            self._supervisor.kill()
        else:
            self.kill = True
            raise KeyboardInterrupt


@contextmanager
def _signals(supervisor: Supervisor) -> Iterator[_Interrupts]:
    interrupts = _Interrupts(supervisor)
    before = {number: signal.signal(number, interrupts) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
