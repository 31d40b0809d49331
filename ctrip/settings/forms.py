"""How each variable is written: what reads it, and the words that say so to whoever wrote it wrong."""

import base64
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from ctrip.domain.mailboxes import is_address, read_mail_server, read_mailbox
from ctrip.domain.quotas import Quota

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")
_WINDOWS_S = {"second": 1, "minute": 60, "hour": 3600}

DEVELOPMENT, PRODUCTION, TEST = "development", "production", "test"


@dataclass(frozen=True)
class Form(Generic[T]):
    """How a variable is written: `right` says it to people, `parse` reads it and raises ValueError."""

    right: str
    parse: Callable[[str], T]


def _one_of(*choices: str) -> Form[str]:
    """Return the form of a variable that is one of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError("choice")
        return text

    return Form(f"it is one of {', '.join(choices)}", parse)


def _database_url(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    parts = urlsplit(text)
    place = rest.partition("?")[0]
    authority, _, name = place.partition("/")
    # An @, a / or a : of the password that is not percent-encoded would make a host name out of the rest of it,
    # which the driver then shows in its error.
    if "@" in name or authority.count("@") > 1 or (parts.port or 1) < 1 or authority.partition("@")[0].count(":") > 1:
        raise ValueError("authority")
    if not separator or scheme not in ("postgresql", "postgres", "postgresql+psycopg2") or not name:
        raise ValueError("scheme")
    # SQLAlchemy 2.1 reads the bare scheme as psycopg 3; this project runs on psycopg2.
    return f"postgresql+psycopg2://{rest}"


def _redis_url(text: str) -> str:
    parts = urlsplit(text)
    number = parts.path.strip("/")
    if parts.scheme not in ("redis", "rediss", "unix") or (parts.port or 1) < 1:
        raise ValueError("scheme")
    if parts.scheme != "unix" and (not parts.hostname or (number and not _is_digits(number))):
        raise ValueError("place")
    return text


def _public_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("address")
    return text.rstrip("/")


def _count(text: str, *, largest: int = 1_000_000_000) -> int:
    if not _is_digits(text) or int(text) > largest:
        raise ValueError("number")
    return int(text)


def between(text: str, least: int, largest: int) -> int:
    """Read a whole number within bounds. Raises ValueError."""
    number = _count(text, largest=largest)
    if number < least:
        raise ValueError("number")
    return number


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _fernet_keys(text: str) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in text.split(","))
    # binascii.Error, for what is no base64, is a ValueError.
    if any(len(base64.b64decode(key, altchars=b"-_", validate=True)) != 32 for key in keys):
        raise ValueError("length")
    return keys


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(","))


def _gaps(text: str) -> tuple[int, ...]:
    gaps = tuple(_count(part.strip(), largest=604_800) for part in text.split(","))
    if len(gaps) > 20:
        raise ValueError("too many")
    return gaps


def _quota(text: str) -> Quota | None:
    if text == "off":
        return None
    most, _, window = text.partition("/")
    if window not in _WINDOWS_S:
        raise ValueError("window")
    return Quota(between(most, 1, 1_000_000_000), _WINDOWS_S[window])


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(","))
    for origin in origins:
        parts = urlsplit(origin)
        # As browsers write it: no path, no slash, no port that goes without saying.
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}" or not parts.hostname:
            raise ValueError("origin")
        if "@" in parts.netloc or parts.port in (80, 443) or origin != origin.lower():
            raise ValueError("origin")
    return origins


def _words(text: str) -> str:
    if not text.isprintable():
        raise ValueError("unprintable")
    return text


def _address(text: str) -> str:
    if not is_address(text):
        raise ValueError("address")
    return text


def _mailbox(text: str) -> str:
    read_mailbox(text)
    return text


def _smtp_url(text: str) -> str:
    read_mail_server(text)
    return text


ENV = _one_of(DEVELOPMENT, PRODUCTION, TEST)
LOG_LEVEL = _one_of("DEBUG", "INFO", "WARNING", "ERROR")
TEXT: Form[str | None] = Form("it is one line of text", _words)
LINE = Form("it is one line of text", _words)
DATABASE_URL = Form(
    "it is postgresql://user:password@host:port/name, with what is special in the password percent-encoded",
    _database_url,
)
REDIS_URL = Form("it is redis://host:port/number, rediss://… or unix://…", _redis_url)
PUBLIC_URL: Form[str | None] = Form("it is the http(s) address at which clients reach the API", _public_url)
SMTP_URL: Form[str | None] = Form(
    "it is smtp://[user:password@]host[:587] or smtps://[user:password@]host[:465], with user and password in ASCII "
    "and what is special in them percent-encoded",
    _smtp_url,
)
MAILBOX: Form[str | None] = Form("it is an e-mail address, or A Shop <shop@example.com>", _mailbox)
ADDRESS: Form[str | None] = Form("it is an e-mail address", _address)
COUNT = Form("it is a whole number, 0 or more", _count)
DAYS = Form("it is a whole number of days, 0 to 36500", lambda text: _count(text, largest=36_500))
QUOTA: Form[Quota | None] = Form("it is 6000/minute, or another number per second, minute or hour, or off", _quota)
ORIGINS = Form("it is a comma-separated list of origins as browsers tell them, such as https://shop.example", _origins)
THREADS = Form("it is a whole number, 1 to 200", lambda text: between(text, 1, 200))
PORT = Form("it is a port, 0 to 65535, where 0 means none", lambda text: _count(text, largest=65_535))
FERNET_KEYS = Form(
    "it is one or more comma-separated keys of 32 bytes in URL-safe base64, newest first (`ctrip secrets key`)",
    _fernet_keys,
)
NETWORKS = Form("it is a comma-separated list of networks such as 127.0.0.0/8,fd00::/8", _networks)
GAPS = Form("it is a comma-separated list of 1 to 20 gaps in whole seconds, the first usually 0", _gaps)
XPUB: Form[str | None] = Form(
    "it is the account's extended public key at m/44'/60'/0', as `ctrip wallet xpub` prints it", _words
)
MNEMONIC: Form[str | None] = Form(
    "it is the wallet's seed phrase, 12 to 24 words of BIP-39", lambda text: " ".join(text.split())
)
GAS_KEY: Form[str | None] = Form("it is the private key of the gas wallet, 0x and 64 hex digits", _words)
