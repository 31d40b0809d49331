"""Where mail comes from and by which server it leaves, as operators write them down."""

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_EMAIL_NAMES = r'[^\s@<>(),;:"\[\]\\\x00-\x1f\x7f'
EMAIL_PATTERN = rf"^{_EMAIL_NAMES}]{{1,64}}@({_EMAIL_NAMES}.]{{1,63}}\.){{1,8}}{_EMAIL_NAMES}.]{{2,63}}$"
"""What we would write an e-mail to. Python, pydantic and readers of the OpenAPI document read it alike."""
EMAIL_CHARACTERS = 254

_PORTS = {"smtp": 587, "smtps": 465}
_NAME_CHARACTERS = 200


@dataclass(frozen=True)
class Mailbox:
    """An address and the name that stands before it, which may be empty."""

    name: str
    address: str


@dataclass(frozen=True)
class MailServer:
    """An SMTP server. `is_tls`: TLS from the first byte; else STARTTLS. No user: it is not logged in to."""

    host: str
    port: int
    is_tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def is_local(self) -> bool:
        """True where what is sent does not leave this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def is_address(text: str) -> bool:
    """True for what we would write an e-mail to."""
    return len(text) <= EMAIL_CHARACTERS and re.fullmatch(EMAIL_PATTERN, text) is not None


def read_mailbox(text: str) -> Mailbox:
    """Read `shop@example.com` or `A Shop <shop@example.com>`. Raises ValueError."""
    named = re.fullmatch(r"([^<>]*)<([^<>]*)>", text.strip())
    # With or without the quotes that a header would need around a comma: the header is written anew anyway.
    name, address = ("", text) if named is None else (named[1].strip().strip('"'), named[2])
    if not is_address(address) or not text.isprintable() or len(name) > _NAME_CHARACTERS:
        raise ValueError("mailbox")
    return Mailbox(name, address)


def read_mail_server(url: str) -> MailServer:
    """Read `smtp://[user:password@]host[:587]` or `smtps://[user:password@]host[:465]`. Raises ValueError.

    User and password are percent-encoded ASCII: what SMTP says of others depends on the server.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("form")
    if not url.isprintable() or "@" in parts.netloc.rpartition("@")[0] or parts.port == 0:
        raise ValueError("authority")
    user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
    if (user is None) != (password is None) or not f"{user}{password}".isascii():
        raise ValueError("credentials")
    return MailServer(parts.hostname, parts.port or _PORTS[parts.scheme], parts.scheme == "smtps", user, password)
