"""Two machines that read the same chains: groups of processes in networks of their own, and who read what when."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from ctrip.context import Context
from tests.chaos.town import Group, Town
from tests.chaos.watch import OVERLAPS, WATCH
from tests.lying_node import Relay

_BLOCKS = (b"eth_getLogs", b"true]")
"""What only a reader of blocks asks for: logs, and blocks with their transactions."""
_CHANGES = (
    "SELECT extract(epoch FROM at)::float8 AS at, fence > fence_before AS is_claim, is_leased "
    "FROM watching.changes WHERE name = :name ORDER BY id"
)


@dataclass
class Machine:
    """A group, the way to its network, and when it read blocks of which chain."""

    name: str
    group: Group
    link: str | None
    read_at: dict[int, list[float]] = field(default_factory=dict)

    def cut(self) -> None:
        """Take its network away; where it has none of its own, stop its processes for good."""
        if self.link is None:
            self.group.kill()
        else:
            _ip("link", "set", self.link, "down")

    def mend(self) -> None:
        if self.link is not None:
            _ip("link", "set", self.link, "up")
        self.group.keep()


@contextmanager
def build_machines(town: Town) -> Iterator[tuple[Machine, Machine]]:
    """Two machines on the town's database and Redis. Each reads a chain through the node that is its own."""
    with ExitStack() as parts:
        machines = [_machine(parts, town, number) for number in range(2)]
        yield machines[0], machines[1]


def _machine(parts: ExitStack, town: Town, number: int) -> Machine:
    name = ("left", "right")[number]
    inside, link, host = parts.enter_context(_network(number))
    redis = Relay(town.environment["REDIS_URL"], host=host)
    parts.callback(redis.close)
    rows: list[dict[str, Any]] = []
    read_at: dict[int, list[float]] = {}
    for street in town.streets:
        node = street.nodes[number]
        node.on_ask = _noting(read_at.setdefault(street.chain_id, []))
        way = Relay(node.url, host=host)
        parts.callback(way.close)
        rows.append(street.row(f"http://{way.place}"))
    environment = {"REDIS_URL": f"redis://{redis.place}/0"}
    group = town.group(name, rows=rows, inside=inside, environment=environment)
    parts.callback(group.kill)
    return Machine(name, group, link, read_at)


@contextmanager
def _network(number: int) -> Iterator[tuple[tuple[str, ...], str | None, str]]:
    """A network namespace: what stands before a command in it, its link, and our address there.

    Where we may not make one, there is only our own.
    """
    name, link, ours = f"ctrip-machine-{number}", f"ctrip-m{number}", f"10.231.{200 + number}.1"
    if not _ip("netns", "add", name):
        yield (), None, "127.0.0.1"
        return
    inside = ("ip", "netns", "exec", name)
    try:
        _ip("link", "add", link, "type", "veth", "peer", "name", "up0", "netns", name)
        _ip("addr", "add", f"{ours}/24", "dev", link)
        _ip("link", "set", link, "up")
        for command in (("addr", "add", f"10.231.{200 + number}.2/24", "dev", "up0"), ("link", "set", "up0", "up")):
            subprocess.run([*inside, "ip", *command], check=True)
        yield inside, link, ours
    finally:
        _ip("netns", "del", name)


def _ip(*arguments: str) -> bool:
    try:
        return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _noting(read_at: list[float]) -> Callable[[bytes], None]:
    def note(body: bytes) -> None:
        if any(sign in body for sign in _BLOCKS):
            read_at.append(time.time())

    return note


# --- judging --------------------------------------------------------------------------------------------------------


@contextmanager
def watching(ctx: Context) -> Iterator[None]:
    """Note every change of the loops' rows."""
    with ctx.sessions.begin() as session:
        session.execute(sa.text(WATCH))
    try:
        yield
    finally:
        with ctx.sessions.begin() as session:
            session.execute(sa.text("DROP SCHEMA watching CASCADE"))


def read_by_both(town: Town, machines: tuple[Machine, Machine]) -> list[str]:
    """Every run of a listener's loop in which more than one machine read, and every claim within another's lease."""
    with town.ctx.sessions.begin() as session:
        found = [f"{row.name} was claimed at {row.at} within a lease" for row in session.execute(sa.text(OVERLAPS))]
    for street in town.streets:
        for began, ended in _runs(town.ctx, street.chain_id):
            readers = [m.name for m in machines if any(began <= at < ended for at in m.read_at[street.chain_id])]
            if len(readers) > 1:
                found.append(f"{street.chain_id} was read by both from {began} to {ended}")
    return found


def _runs(ctx: Context, chain_id: int) -> list[tuple[float, float]]:
    """When each claim of a chain's listener began, and when it was given back or the next one began."""
    with ctx.sessions.begin() as session:
        changes: list[Any] = list(session.execute(sa.text(_CHANGES), {"name": f"listener:{chain_id}"}))
    edges = [change for change in changes if change.is_claim or not change.is_leased]
    return [(edge.at, after.at) for edge, after in pairwise(edges) if edge.is_claim]
