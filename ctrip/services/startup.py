"""What a process looks at before it begins: each fault refuses the start with one message, without any secret."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.tokens import confirm, unconfirmed
from ctrip.context import Context
from ctrip.database import durability, granting, limits, schema, unreachable, wallet
from ctrip.database.roles import Group
from ctrip.domain.addresses import hex_text
from ctrip.domain.chains import Token
from ctrip.errors import MisconfiguredError, NodeRefused, NodeUnavailable, Unavailable
from ctrip.log import get_logger
from ctrip.settings import Role
from ctrip.settings.forms import PRODUCTION

T = TypeVar("T")
log = get_logger()


def check(ctx: Context) -> None:
    """Raise MisconfiguredError where this process would work on the wrong database, chain or wallet.

    A node that does not answer is only logged: its outage must not keep a restarted process from coming up.
    """
    role = ctx.settings.role
    if role is not Role.CLI:
        _check_privileges(ctx)
    _check_schema(ctx)
    if role is not Role.CLI:  # The operator's tools are what one finds out with.
        _check_forgotten_chains(ctx)
        _check_durability(ctx)
    if role is Role.SWEEPER:
        _check_wallet(ctx)
    if role in (Role.LISTENER, Role.SWEEPER):
        _adopt_limits(ctx)
        _check_nodes(ctx)


def _check_privileges(ctx: Context) -> None:
    """Refuse now what would fail at the first statement that needs it. An owner of the tables lacks nothing."""
    group = Group.API if ctx.settings.role is Role.API else Group.WORKER
    lacking = _read(ctx, lambda session: granting.lacking(session, group))
    if lacking:
        raise MisconfiguredError(
            f"DATABASE_URL: its user lacks {granting.said(lacking)}; make it a member of {group}, "
            "and run `ctrip db upgrade` as the owner of the tables, which grants that group what it needs"
        )


def _check_schema(ctx: Context) -> None:
    stored = _read(ctx, schema.stored_revision)
    shipped = schema.shipped_revision()
    if stored != shipped:
        found = "has no tables" if stored is None else f"is at revision {stored}"
        raise MisconfiguredError(
            f"DATABASE_URL: the database {ctx.settings.database_place} {found}, this program needs {shipped}; "
            "run `ctrip db upgrade`, or the program that fits the database"
        )


def _read(ctx: Context, question: Callable[[Connection], T]) -> T:
    """Ask Postgres for the first time. Raises MisconfiguredError where it is away."""
    try:
        with ctx.sessions.begin() as session:
            return question(session)
    except Unavailable as error:
        raise MisconfiguredError(unreachable.message(error, ctx.settings.database_place)) from error


def _check_forgotten_chains(ctx: Context) -> None:
    configured = {chain.chain_id for chain in ctx.settings.chains}
    with ctx.sessions.begin() as session:
        holdings = wallet.unconfigured_holdings(session, configured=configured)
    if holdings:
        listed = ", ".join(f"{h.chain} (chain_id {h.chain_id}, {h.addresses} addresses)" for h in holdings)
        raise MisconfiguredError(
            f"CHAINS_FILE: has no row for {listed}, but deposit addresses hold money there; "
            "put the row back, with `enabled: false` if the chain should rest"
        )


def _check_durability(ctx: Context) -> None:
    """Refuse, in production, a Postgres of which a crash loses payments whose addresses are out already."""
    if ctx.settings.env != PRODUCTION:
        return
    with ctx.sessions.begin() as session:
        may_forget = durability.may_forget(session)
    if may_forget:
        raise MisconfiguredError(
            f"DATABASE_URL: the database {ctx.settings.database_place} runs with synchronous_commit off: a crash of it "
            "would lose what was acknowledged a moment before; set it to on (ALTER DATABASE … SET synchronous_commit)"
        )


def _check_wallet(ctx: Context) -> None:
    treasuries = {chain.treasury: chain.name for chain in ctx.settings.chains}
    with ctx.sessions.begin() as session:
        circular = wallet.given_out(session, list(treasuries))
        has_others = ctx.wallet is not None and wallet.has_others(session, ctx.wallet.fingerprint)
    if circular:
        names = ", ".join(sorted(treasuries[address] for address in circular))
        raise MisconfiguredError(
            f"CHAINS_FILE: the treasury of {names} is one of our deposit addresses; it is an address outside the wallet"
        )
    if has_others:
        log.warning("addresses_of_another_wallet", hint="this sweeper cannot sweep them; see `ctrip wallet check`")


def _adopt_limits(ctx: Context) -> None:
    """Begin with what was learnt of the endpoints before."""
    for chain_id, client in ctx.clients.items():
        with ctx.sessions.begin() as session:
            learnt = limits.find(session, chain_id)
        client.adopt(learnt)


def _check_nodes(ctx: Context) -> None:
    """Ask all chains at once, so that several that are away cost the wait of one; the listener asks for tokens too."""
    clients = list(ctx.clients.values())
    with ThreadPoolExecutor(max_workers=8) as pool:
        answering = [client for client, answers in zip(clients, pool.map(_answers, clients), strict=True) if answers]
        if ctx.settings.role is Role.LISTENER:
            # Of those that are away, too: whoever looks at balances asks again for what is not confirmed yet.
            listed = [(client, token) for client in clients for token in unconfirmed(client.chain)]
            asked = [pool.submit(_check_decimals, *each) for each in listed if each[0] in answering]
            for answer in asked:
                answer.result()


def _answers(client: ChainClient) -> bool:
    try:
        client.verify()
    except NodeUnavailable as error:
        log.warning("node_unreachable_at_start", chain=client.chain.name, reason=error.detail)
        return False
    return True


def _check_decimals(client: ChainClient, token: Token) -> None:
    try:
        told = confirm(client, token)
    except (NodeRefused, NodeUnavailable) as error:
        log.warning("token_tells_no_decimals", chain=client.chain.name, token=token.symbol, reason=error.detail)
        return
    if told != token.decimals:
        raise MisconfiguredError(
            f"CHAINS_FILE: chain {client.chain.name}: token {token.symbol} is listed with {token.decimals} "
            f"decimals, but its contract {hex_text(token.address)} says {told}"
        )
