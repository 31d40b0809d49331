"""The environment and chains.yaml as one frozen Settings, checked at start; nothing else reads the environment.

Every fault is named in one message: the key, what is wrong and what would be right, and the value only where it is
no secret. A role gets only what it may hold: the sweeper alone sees keys. Whatever holds a secret has a `…_FILE` form.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from ctrip.domain.chains import Chain
from ctrip.domain.quotas import Quota, QuotaOf
from ctrip.domain.rates import Pair, pairs_of
from ctrip.errors import MisconfiguredError
from ctrip.settings import forms
from ctrip.settings.chains import dev_chain, read_chains
from ctrip.settings.environment import Environment
from ctrip.settings.forms import DEVELOPMENT, PRODUCTION, Network
from ctrip.settings.rates import RateSettings, read_rates

RETRY_GAPS_S = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""The example schedule of Standard Webhooks 1.0: ten attempts in 75.6 hours."""
QUOTAS: Mapping[QuotaOf, Quota] = {QuotaOf.KEY: Quota(6000, 60), QuotaOf.ADDRESS: Quota(300, 60)}


class Role(StrEnum):
    """What a process is; decides which settings it reads and what `bootstrap` builds for it."""

    API = "api"
    LISTENER = "listener"
    SWEEPER = "sweeper"
    WEBHOOK = "webhook"
    EMAIL = "email"
    SCHEDULER = "scheduler"
    CLI = "cli"


_DERIVES = frozenset({Role.API, Role.SWEEPER})
_ENCRYPTS = frozenset({Role.API, Role.WEBHOOK})
_DIALS = frozenset({Role.API, Role.WEBHOOK})
_PRICES = frozenset({Role.API, Role.SCHEDULER, Role.CLI})
_HOLDERS: Mapping[str, frozenset[Role]] = {
    "WALLET_XPUB": _DERIVES | {Role.CLI},
    "WALLET_MNEMONIC": frozenset({Role.SWEEPER}),
    "GAS_KEY": frozenset({Role.SWEEPER}),
    "SECRETS_KEY": _ENCRYPTS | {Role.CLI},
    "PUBLIC_URL": frozenset({Role.API}),
    "TRUSTED_PROXIES": frozenset({Role.API}),
    "RATE_LIMIT_PER_KEY": frozenset({Role.API}),
    "RATE_LIMIT_PER_ADDRESS": frozenset({Role.API}),
    "CORS_ORIGINS": frozenset({Role.API}),
    "MAX_OPEN_PAYMENTS": frozenset({Role.API}),
    "WEBHOOK_ALLOW_CIDRS": _DIALS,
    "SMTP_URL": frozenset({Role.EMAIL}),
    "OPERATOR_EMAIL": frozenset({Role.EMAIL}),
    "DEAD_LETTERS_KEPT_DAYS": frozenset({Role.SCHEDULER}),
    "COINGECKO_API_KEY": frozenset({Role.SCHEDULER}),
}
"""Who may hold what; for every other role the variable is as good as not set."""
_LOG_LEVELS = {Role.CLI: "WARNING"}
"""An operator reads the tool's own words, between which its log lines would stand; servers begin at INFO."""


@dataclass(frozen=True)
class Settings:
    """All that a process is told from outside. Fields that its role may not hold stay empty.

    `chains` are all rows of the file, those with `enabled: false` too.
    """

    role: Role
    env: str
    log_level: str
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    chains: tuple[Chain, ...] = field(repr=False)
    wallet_xpub: str | None = field(default=None, repr=False)
    secrets_keys: tuple[str, ...] = field(default=(), repr=False)
    trusted_proxies: int = 0
    quotas: Mapping[QuotaOf, Quota] = field(default_factory=dict)
    cors_origins: tuple[str, ...] = ()
    max_open_payments: int = 100_000
    webhook_allow_cidrs: tuple[Network, ...] = ()
    webhook_gaps_s: tuple[int, ...] = RETRY_GAPS_S
    webhook_threads: int = 16
    smtp_url: str | None = field(default=None, repr=False)
    mail_from: str | None = None
    operator_email: str | None = None
    dead_letters_kept_days: int = 90
    wallet_mnemonic: str | None = field(default=None, repr=False)
    gas_key: str | None = field(default=None, repr=False)
    rates: RateSettings = field(default_factory=RateSettings)
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0

    def chain(self, chain_id: int) -> Chain | None:
        """Find a configured chain by its id."""
        return next((chain for chain in self.chains if chain.chain_id == chain_id), None)

    @property
    def chains_by_id(self) -> dict[int, Chain]:
        """Every configured chain by its id."""
        return {chain.chain_id: chain for chain in self.chains}

    def chain_named(self, name: str) -> Chain | None:
        """Find a configured chain by its name."""
        return next((chain for chain in self.chains if chain.name == name), None)

    @property
    def rate_pairs(self) -> dict[str, list[Pair]]:
        """What each source of rates is asked for."""
        return pairs_of(self.chains, sources=self.rates.sources, currencies=self.rates.currencies)

    @property
    def database_place(self) -> str:
        """Where the database is, without any credentials: for messages."""
        parts = urlsplit(self.database_url)
        host = parts.hostname or parse_qs(parts.query).get("host", ["the local socket"])[0]
        return f"{host}:{parts.port or 5432}{parts.path}"

    def secrets(self) -> Iterator[str]:
        """Tell every secret value in here, for the logs to strike out."""
        yield from filter(None, (self.wallet_xpub, self.wallet_mnemonic, self.gas_key, *self.secrets_keys))
        yield from self.rates.secrets()
        urls = [self.database_url, self.redis_url, self.smtp_url or ""]
        for password in filter(None, (urlsplit(url).password for url in urls)):
            yield from (password, unquote(password))
        for url in (url for chain in self.chains for url in (*chain.rpc_urls, *chain.ws_urls)):
            # Providers put their customer's key into the path or the query.
            parts = urlsplit(url)
            yield from filter(None, (parts.password, parts.path.strip("/"), parts.query))


def load_settings(role: Role, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of a role from the environment (`.env` is read in development) and chains.yaml.

    Raises MisconfiguredError with every fault at once.
    """
    read = Environment(environment, withheld=[name for name, roles in _HOLDERS.items() if role not in roles])
    if environment is None and read.text("ENV") in ("", DEVELOPMENT):
        read.add_defaults(Path(".env"))
    mode = read.value("ENV", forms.ENV, DEVELOPMENT)
    signs = role is Role.SWEEPER
    chains = _chains(read, mode)
    # Told at the start where it is wrong, though nothing here shows it to anybody.
    read.value("PUBLIC_URL", forms.PUBLIC_URL, None)
    settings = Settings(
        role=role,
        env=mode,
        log_level=read.value("LOG_LEVEL", forms.LOG_LEVEL, _LOG_LEVELS.get(role, "INFO")),
        database_url=read.value("DATABASE_URL", forms.DATABASE_URL, "", required=True),
        redis_url=read.value("REDIS_URL", forms.REDIS_URL, "redis://127.0.0.1:6379/0"),
        chains=chains,
        wallet_xpub=read.value("WALLET_XPUB", forms.XPUB, None, required=role in _DERIVES),
        secrets_keys=read.value("SECRETS_KEY", forms.FERNET_KEYS, (), required=role in _ENCRYPTS),
        trusted_proxies=read.value("TRUSTED_PROXIES", forms.COUNT, 0),
        quotas=_quotas(read) if role is Role.API else {},
        cors_origins=read.value("CORS_ORIGINS", forms.ORIGINS, ()),
        max_open_payments=read.value("MAX_OPEN_PAYMENTS", forms.COUNT, 100_000),
        webhook_allow_cidrs=_opened_ranges(read, mode),
        webhook_gaps_s=read.value("WEBHOOK_RETRY_SCHEDULE", forms.GAPS, RETRY_GAPS_S),
        webhook_threads=read.value("WEBHOOK_THREADS", forms.THREADS, 16),
        smtp_url=read.value("SMTP_URL", forms.SMTP_URL, None),
        mail_from=read.value("MAIL_FROM", forms.MAILBOX, None, required=bool(read.text("SMTP_URL"))),
        operator_email=read.value("OPERATOR_EMAIL", forms.ADDRESS, None),
        dead_letters_kept_days=read.value("DEAD_LETTERS_KEPT_DAYS", forms.DAYS, 90),
        wallet_mnemonic=read.value("WALLET_MNEMONIC", forms.MNEMONIC, None, required=signs),
        gas_key=read.value("GAS_KEY", forms.GAS_KEY, None, required=signs),
        rates=read_rates(read, chains, mode=mode, asks_prices=role in _PRICES),
        metrics_host=read.value("METRICS_HOST", forms.LINE, "127.0.0.1"),
        metrics_port=read.value("METRICS_PORT", forms.PORT, 0),
    )
    read.raise_faults()
    return settings


def read_mnemonic(environment: Mapping[str, str] | None = None) -> str | None:
    """Return the seed phrase for the wallet tools, which run where the operator keeps it. Raises MisconfiguredError."""
    read = Environment(environment)
    mnemonic = read.value("WALLET_MNEMONIC", forms.MNEMONIC, None)
    read.raise_faults()
    return mnemonic


def read_database_url(path: Path) -> str:
    """Return what a file holds, as a process reads it that is given DATABASE_URL_FILE. Raises MisconfiguredError."""
    read = Environment({"DATABASE_URL_FILE": str(path)})
    url = read.value("DATABASE_URL", forms.DATABASE_URL, "")
    read.raise_faults()
    return url


def _chains(read: Environment, mode: str) -> tuple[Chain, ...]:
    """Read the chains file; only where none exists, and in development alone, the local dev chain stands in."""
    named = read.text("CHAINS_FILE")
    path = Path(named or "chains.yaml")
    if not named and mode == DEVELOPMENT and not path.exists():
        return (dev_chain(),)
    try:
        return read_chains(path)
    except MisconfiguredError as error:
        read.fault(error.detail)
        return ()


def _quotas(read: Environment) -> dict[QuotaOf, Quota]:
    """Read the quota of each kind; without those that are off."""
    told = {of: read.value(f"RATE_LIMIT_PER_{of.upper()}", forms.QUOTA, default) for of, default in QUOTAS.items()}
    return {of: quota for of, quota in told.items() if quota is not None}


def _opened_ranges(read: Environment, mode: str) -> tuple[Network, ...]:
    opened = read.value("WEBHOOK_ALLOW_CIDRS", forms.NETWORKS, ())
    confirmed = read.text("WEBHOOK_ALLOW_CIDRS_IN_PRODUCTION") == "yes"
    if opened and mode == PRODUCTION and not confirmed:
        read.fault(
            "WEBHOOK_ALLOW_CIDRS: lets webhooks reach private ranges; leave it empty in production, "
            "or say WEBHOOK_ALLOW_CIDRS_IN_PRODUCTION=yes to mean it"
        )
    return opened
