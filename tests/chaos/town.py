"""Chains before which two nodes each may lie, and groups of worker processes that read them all."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen
from typing import Any

import sqlalchemy as sa
import yaml
from eth_account import Account
from eth_account.signers.local import LocalAccount

from ctrip.bootstrap import bootstrap, shut_down
from ctrip.context import Context
from ctrip.database import cursors
from ctrip.database.models import merchants
from ctrip.domain.addresses import checksum_address
from ctrip.local import devchain
from ctrip.local.children import Program, kill_group, spawn
from ctrip.settings import Role
from tests import conftest
from tests.devchain import ETHER, USDC, DevChain
from tests.lying_node import DroppingSocket, LyingNode
from tests.stack import PORTS
from tests.waiting import wait_until

PAYERS = 24
"""More than one story has transactions: each is of a sender of its own, so that none waits for another's nonce."""
CONFIRMATIONS = 3
REORG_WINDOW = 16
"""Beyond the deepest reorg, and short, so that a leap of the head is caught up with by spans."""
_FIRST_CHAIN_ID = 41_000
_FIRST_PORT = 33_545
_SOCKET_DROPS_S = (0.1, 3.0)
"""A tenth of the 1 to 30 seconds after which providers drop a WebSocket."""


@dataclass
class Street:
    """One chain: its honest node, and what the workers are told to read it through."""

    chain: DevChain
    chain_id: int
    usdc: bytes
    payers: list[LocalAccount]
    nodes: tuple[LyingNode, LyingNode]
    socket: DroppingSocket

    def row(self, *urls: str) -> dict[str, Any]:
        """Its row of chains.yaml, read through `urls`."""
        return {
            "name": f"street-{self.chain_id}",
            "chain_id": self.chain_id,
            "rpc_urls": list(urls),
            "native": {"symbol": "ETH", "decimals": 18},
            "confirmations": CONFIRMATIONS,
            "reorg_window": REORG_WINDOW,
            "poll_seconds": 0.3,
            "treasury": checksum_address(self.chain.treasury),
            "sweep": {"max_fee_gwei": 200},
            "tokens": [{"symbol": "USDC", "address": checksum_address(self.usdc), "decimals": 6}],
        }

    def heal(self) -> None:
        """Let both nodes and the socket be honest."""
        for part in (*self.nodes, self.socket):
            part.heal()


class Group:
    """The listener's workers and a scheduler, as on one machine, with an environment and perhaps a network of its own.

    Start it from the main thread only: its processes die with the thread that started them.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, *, inside: tuple[str, ...] = ()) -> None:
        commands = {"worker": ("./worker.sh", "listener"), "scheduler": (sys.executable, "-m", "actors.scheduler")}
        self.log = log
        self._programs = {
            name: Program(name, (*inside, *argv), environment, is_ready=lambda: True, folder=conftest.ROOT)
            for name, argv in commands.items()
        }
        self._running: dict[str, Popen[bytes]] = {}

    def keep(self) -> None:
        """Start what does not run, as a supervisor does: a worker refuses to start on a chain that is not its own."""
        for name, program in self._programs.items():
            if name not in self._running or self._running[name].poll() is not None:
                with self.log.open("ab") as output:
                    self._running[name] = spawn(program, output=output)

    def kill(self, *names: str) -> None:
        """kill -9 these of its processes with all that they have forked; all of them unless named."""
        for name in names or tuple(self._programs):
            if name in self._running:
                kill_group(self._running[name])
                self._running[name].wait()


@dataclass
class Town:
    """Everything that a story of lies takes. `ctx` reads the chains honestly, through no liar."""

    ctx: Context
    streets: list[Street]
    environment: dict[str, str]
    folder: Path

    def group(
        self,
        name: str,
        *,
        rows: list[dict[str, Any]] | None = None,
        inside: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Group:
        """A group that reads the chains through these rows of chains.yaml, by default through the liars."""
        lying = [street.row(*(node.url for node in street.nodes)) for street in self.streets]
        with_sockets = [row | {"ws_urls": [at.socket.url]} for row, at in zip(lying, self.streets, strict=True)]
        chains_file = self.folder / f"chains-{name}.yaml"
        chains_file.write_text(yaml.safe_dump({"chains": rows or with_sockets}))
        whole = self.environment | {"CHAINS_FILE": str(chains_file)} | dict(environment or {})
        return Group(whole, self.folder / f"{name}.log", inside=inside)

    def settle(self, group: Group) -> None:
        """Wait until every chain is being read: what stands in blocks before that is nobody's."""

        def are_read() -> bool:
            group.keep()
            with self.ctx.sessions.begin() as session:
                return all(cursors.find(session, street.chain_id) for street in self.streets)

        wait_until(are_read, within_s=30, what=f"every chain is read, see {group.log}")


@contextmanager
def build_town(streets: int, *, anvil: Path, database_url: str, redis_url: str, folder: Path) -> Iterator[Town]:
    """Start chains and liars, and a context on an emptied database that has one merchant. No worker runs yet."""
    with ExitStack() as parts:
        built = [_street(parts, number, anvil=anvil, folder=folder) for number in range(streets)]
        chains_file = folder / "chains.yaml"
        chains_file.write_text(yaml.safe_dump({"chains": [street.row(street.chain.url) for street in built]}))
        environment = {
            "ENV": "test",
            "DATABASE_URL": database_url.replace("+psycopg2", ""),
            "REDIS_URL": redis_url,
            "WALLET_XPUB": conftest.XPUB,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(conftest.ROOT),
            "HOME": os.environ.get("HOME", "/"),
        }
        ctx = bootstrap(Role.CLI, environment | {"CHAINS_FILE": str(chains_file)})
        parts.callback(shut_down, ctx)
        # Whoever starts next on this database would miss the chains of these payments in its settings.
        parts.callback(conftest.empty, ctx.sessions.engine)
        with ctx.sessions.begin() as session:
            session.execute(sa.delete(merchants))
            session.execute(merchants.insert().values(id=conftest.MERCHANT_ID, name="A shop", webhook_secret=b"sealed"))
        yield Town(ctx, built, environment, folder)


def _street(parts: ExitStack, number: int, *, anvil: Path, folder: Path) -> Street:
    chain_id = _FIRST_CHAIN_ID + number
    program, url = devchain.anvil(anvil, port=_FIRST_PORT + PORTS + number, block_time_s=None)
    argv = tuple(str(chain_id) if part == str(devchain.CHAIN_ID) else part for part in program.argv)
    own = folder / str(chain_id)
    own.mkdir()
    parts.enter_context(conftest.running(replace(program, argv=argv), own))
    chain = DevChain(url)
    usdc = chain.deploy_token()
    payers = [Account.from_key((1 + 1000 * number + each).to_bytes(32)) for each in range(PAYERS)]
    for payer in payers:
        address = bytes.fromhex(payer.address[2:])
        chain.set_balance(address, 10_000 * ETHER)
        chain.mint(usdc, to=address, amount=10**6 * USDC, sender=chain.faucet)
    chain.mine(2)
    street = Street(
        chain,
        chain_id,
        usdc,
        payers,
        nodes=(LyingNode(url), LyingNode(url)),
        socket=DroppingSocket(url, every=_SOCKET_DROPS_S),
    )
    for part in (*street.nodes, street.socket):
        parts.callback(part.close)
    return street
