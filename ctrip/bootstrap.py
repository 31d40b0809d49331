"""The only place that constructs: settings, logs, database, clients and keys. Each role gets only what it may hold.

          sessions  clients  wallet  signer  box  poster  mailer  counters  rate sources
api           x                x              x     x                x     (the poster checks URLs, and never posts)
listener      x        x
sweeper       x        x       x       x
webhook       x                               x     x
email         x                                             x              (where its settings name a server)
scheduler     x                                                               x
cli           x        x       (x)            (x)                          (where its settings have them)
"""

import gc
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from ctrip.blockchain.client import ChainClient
from ctrip.context import Box, Context
from ctrip.database.engine import Sessions, make_engine
from ctrip.domain.addresses import checksum_address
from ctrip.domain.ids import RANDOM_BYTES, Prefix, make_id
from ctrip.log import configure_logging, get_logger
from ctrip.services import startup
from ctrip.settings import Role, Settings, load_settings
from ctrip.settings.forms import PRODUCTION

if TYPE_CHECKING:
    from ctrip.blockchain.addresses import DepositWallet
    from ctrip.blockchain.signer import Signer
    from ctrip.outbound.counters import Counters
    from ctrip.outbound.email import Mailer
    from ctrip.outbound.http import Poster
    from ctrip.outbound.rates import RateSource

__all__ = ["Role", "bootstrap", "endpoint_clients", "open_database", "shut_down"]

_READS_CHAINS = (Role.LISTENER, Role.SWEEPER, Role.CLI)
_DIALS = (Role.API, Role.WEBHOOK)
_UNCOLLECTED = (10_000, 20, 20)
"""How much is made before garbage is looked for. A block may pay thousands, and what is made for them lives until the
commit: to look through it as often as Python would by itself takes a third of the time. What was imported is never
garbage, and is not looked through at all."""

log = get_logger()


def bootstrap(role: Role | str, environment: Mapping[str, str] | None = None) -> Context:
    """Build all that a process of this role may hold, and check that it may start.

    Raises MisconfiguredError, whose one message names every fault found and holds no secret. `environment` stands in
    for the process's own.
    """
    role = Role(role)
    gc.freeze()
    gc.set_threshold(*_UNCOLLECTED)
    settings, engine = open_database(role, environment)
    wallet = _wallet(settings)
    ctx = Context(
        settings=settings,
        sessions=Sessions(engine),
        now=_now,
        new_id=_Ids(),
        clients=_clients(settings) if role in _READS_CHAINS else {},
        wallet=wallet,
        signer=None if wallet is None else _signer(settings, wallet),
        box=_box(settings),
        poster=_poster(settings) if role in _DIALS else None,
        mailer=_mailer(settings),
        counters=_counters(settings),
        rate_sources=_rate_sources(settings) if role is Role.SCHEDULER else {},
    )
    startup.check(ctx)
    if settings.env == PRODUCTION and settings.webhook_allow_cidrs:
        log.warning("webhooks_may_reach_private_ranges", ranges=[str(each) for each in settings.webhook_allow_cidrs])
    return ctx


def shut_down(ctx: Context) -> None:
    """Close what a context holds open, before its process ends: Postgres need not find out by itself."""
    ctx.sessions.engine.dispose()
    if ctx.counters is not None:
        ctx.counters.close()


def open_database(role: Role, environment: Mapping[str, str] | None = None) -> tuple[Settings, Engine]:
    """Read the settings, start the logs and build the engine, which is all that a migration needs. Dials nothing."""
    settings = load_settings(role, environment)
    configure_logging(level=settings.log_level, process=str(role), secrets=settings.secrets())
    return settings, make_engine(settings.database_url, process=role)


def endpoint_clients(settings: Settings) -> dict[int, list[ChainClient]]:
    """Build a client for each single endpoint of the enabled chains, for whoever looks at them one by one."""
    return {
        chain.chain_id: [ChainClient(replace(chain, rpc_urls=(url,))) for url in chain.rpc_urls]
        for chain in settings.chains
        if chain.enabled
    }


def _clients(settings: Settings) -> dict[int, ChainClient]:
    return {chain.chain_id: ChainClient(chain) for chain in settings.chains if chain.enabled}


# Each of these is loaded by the roles that hold it, and costs the others no memory.
# ruff: noqa: PLC0415


def _wallet(settings: Settings) -> "DepositWallet | None":
    if settings.wallet_xpub is None:
        return None
    from ctrip.blockchain.addresses import DepositWallet

    return DepositWallet.from_xpub(settings.wallet_xpub)


def _box(settings: Settings) -> Box | None:
    if not settings.secrets_keys:
        return None
    from ctrip.box import SecretsBox

    return SecretsBox(settings.secrets_keys)


def _poster(settings: Settings) -> "Poster":
    from ctrip.outbound.http import Poster

    # Half of the threads at the most, so that slow destinations leave the other half to the rest.
    return Poster(allow=settings.webhook_allow_cidrs, slow_places=max(1, settings.webhook_threads // 2))


def _signer(settings: Settings, wallet: "DepositWallet") -> "Signer | None":
    if settings.wallet_mnemonic is None or settings.gas_key is None:
        return None
    from ctrip.blockchain.signer import Signer

    signer = Signer(settings.wallet_mnemonic, settings.gas_key, wallet=wallet, chains=settings.chains)
    log.info("gas_wallet", address=checksum_address(signer.gas_address))
    return signer


def _counters(settings: Settings) -> "Counters | None":
    if not settings.quotas:
        return None
    from ctrip.outbound.counters import Counters

    return Counters(settings.redis_url)


def _rate_sources(settings: Settings) -> "dict[str, RateSource]":
    if not settings.rates.sources:
        return {}
    from ctrip.outbound.rates import CoinGecko, Kraken, Static

    rates = settings.rates
    known: dict[str, RateSource] = {
        Kraken.name: Kraken(rates.kraken_url),
        CoinGecko.name: CoinGecko(rates.coingecko_url, api_key=rates.coingecko_api_key),
        Static.name: Static(rates.static),
    }
    return {name: known[name] for name in rates.sources}


def _mailer(settings: Settings) -> "Mailer | None":
    """Build who sends e-mails; an e-mail worker that cannot send them all says so here, once."""
    missing = "SMTP_URL" if settings.smtp_url is None else "OPERATOR_EMAIL" if settings.operator_email is None else None
    if settings.role is Role.EMAIL and missing is not None:
        tell = log.warning if settings.env == PRODUCTION else log.info
        tell("emails_are_skipped", whose="everybody's" if missing == "SMTP_URL" else "the operator's", missing=missing)
    if settings.smtp_url is None or settings.mail_from is None:
        return None
    from ctrip.outbound.email import Mailer

    return Mailer(settings.smtp_url, mail_from=settings.mail_from)


def _now() -> datetime:
    return datetime.now(UTC)


class _Ids:
    """Makes ids that sort in the order in which this process made them, within each kind.

    Two ids of one kind never share a millisecond: the later one is told a later time. Threads may share it.
    """

    def __init__(self) -> None:
        self._last_ms: defaultdict[Prefix, int] = defaultdict(int)
        self._lock = threading.Lock()

    def __call__(self, prefix: Prefix) -> str:
        with self._lock:
            now_ms = self._last_ms[prefix] = max(time.time_ns() // 1_000_000, self._last_ms[prefix] + 1)
        return make_id(prefix, now_ms=now_ms, random=secrets.token_bytes(RANDOM_BYTES))
