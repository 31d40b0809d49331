"""What `make run` and `make demo` are told by their environment; nothing else here reads it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ctrip.errors import MisconfiguredError

ROOT = Path(__file__).resolve().parents[2]
_FOR_ANY_PROGRAM = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
PRICES = (
    "RATE_SOURCES",
    "PRICE_CURRENCIES",
    "STATIC_RATES",
    "KRAKEN_URL",
    "COINGECKO_URL",
    "RATE_REFRESH_SECONDS",
    "RATE_MAX_AGE_SECONDS",
    "RATE_MAX_SPREAD",
    "RATE_LEAST_SOURCES",
    "QUOTE_SECONDS",
)
"""What the rates of fiat prices are told by."""
_FOR_CTRIP = (
    "LOG_LEVEL",
    "WEBHOOK_RETRY_SCHEDULE",
    "MAIL_FROM",
    "OPERATOR_EMAIL",
    "RATE_LIMIT_PER_KEY",
    "RATE_LIMIT_PER_ADDRESS",
    "CORS_ORIGINS",
    "MAX_OPEN_PAYMENTS",
    *PRICES,
)

_MOST_API_PROCESSES = 16


@dataclass(frozen=True)
class Options:
    """`database_url`, `redis_url` and `chain_rpc` replace the embedded part where they are given.

    `walk`: show one payment; `stay`: go on until Ctrl-C. `passed_on` is what the environment says to cTrip's own
    processes; everything else that they get is made here.
    """

    data_dir: Path
    stay: bool
    walk: bool
    npm: bool = True
    database_url: str | None = field(default=None, repr=False)
    redis_url: str | None = field(default=None, repr=False)
    chain_rpc: str | None = field(default=None, repr=False)
    smtp_url: str | None = field(default=None, repr=False)
    coingecko_api_key: str | None = field(default=None, repr=False)
    api_port: int = 8000
    redis_port: int = 6379
    chain_port: int = 8545
    metrics_port: int = 9101
    api_processes: int = 1
    block_time_s: float = 1.0
    passed_on: Mapping[str, str] = field(default_factory=dict, repr=False)


def read_options(*, stay: bool, environment: Mapping[str, str] | None = None) -> Options:
    """Read the switches that README.md lists. An empty variable is an absent one."""
    given = {name: text for name, text in (environment or os.environ).items() if text}
    return Options(
        data_dir=Path(given.get("DATA_DIR", ROOT / ".data")).resolve(),
        stay=stay,
        walk="NO_DEMO" not in given,
        npm="NO_NPM" not in given,
        database_url=given.get("DATABASE_URL"),
        redis_url=given.get("REDIS_URL"),
        chain_rpc=given.get("CHAIN_RPC"),
        smtp_url=given.get("SMTP_URL"),
        coingecko_api_key=given.get("COINGECKO_API_KEY"),
        **_ports(given),
        block_time_s=float(given.get("BLOCK_TIME", "1")),
        api_processes=_api_processes(given.get("API_PROCESSES", "1")),
        passed_on={name: given[name] for name in _FOR_CTRIP if name in given},
    )


def _ports(given: Mapping[str, str]) -> dict[str, int]:
    """Read where each search for a free port begins."""
    names = {"api_port": "PORT", "redis_port": "REDIS_PORT", "chain_port": "CHAIN_PORT", "metrics_port": "METRICS_PORT"}
    wrong = [name for name in names.values() if not given.get(name, "1").isdigit()]
    if wrong:
        raise MisconfiguredError(f"{', '.join(wrong)}: is no number of a port")
    return {field: int(given[name]) for field, name in names.items() if name in given}


def _api_processes(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST_API_PROCESSES:
        raise MisconfiguredError(f"API_PROCESSES: is no number from 1 to {_MOST_API_PROCESSES}")
    return int(text)


def plain_environment() -> dict[str, str]:
    """Return the few variables that any program needs, and none of ours: no child sees a secret by accident."""
    return {name: os.environ[name] for name in _FOR_ANY_PROGRAM if name in os.environ}
