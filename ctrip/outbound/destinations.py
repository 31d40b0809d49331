"""Which webhook URLs may be dialled: what a URL may look like, and which of the addresses it leads to are open.

Merchants name these URLs and our own network stands behind the process that posts to them, so everything is refused
that is not plainly a public web server, save what the operator has opened.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import idna

from ctrip.errors import DestinationRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL_CHARACTERS = 2048
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)

_ALLOCATED_IPV6 = ipaddress.IPv6Network("2000::/3")
"""The only global unicast space that IANA has opened: what lies outside it embeds, maps or multicasts."""

_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # IETF protocol assignments; one cloud keeps its metadata at 192.0.0.192
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "168.63.129.16/32",  # the host agent of Azure, at an address that is public by its number
        "2001::/23",  # IETF protocol assignments; Teredo (RFC 4380) embeds an IPv4 address
        "2002::/16",  # 6to4 (RFC 3056) embeds an IPv4 address
        "3fff::/20",  # documentation (RFC 9637), unknown to older Pythons
    )
)


@dataclass(frozen=True)
class Destination:
    """A URL taken apart once. What is dialled and said is made of these parts, never of the text again.

    `host` is lower-case ASCII; `literal` is the address that it spells, if it does; `target` is path and query.
    """

    is_tls: bool
    host: str
    port: int
    target: str
    literal: Address | None


def read_destination(url: str) -> Destination:
    """Take a webhook URL apart. Raises DestinationRefused for what no honest webhook URL contains.

    Any port from 1024 up is open besides 80 and 443, which hold the web; those below belong to mail, shells and the
    like. A stricter list would buy nothing: to the public we speak TLS alone, which no other service takes for its own.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise DestinationRefused(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
    if not url.isprintable() or any(char in url for char in " \\#"):
        raise DestinationRefused("the URL holds a space, a backslash, a control character or a fragment")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DestinationRefused("the URL cannot be read: its host or port is malformed") from error
    if parts.scheme not in ("https", "http"):
        raise DestinationRefused("the URL's scheme is not https")
    if "@" in parts.netloc:
        raise DestinationRefused("the URL holds credentials; the signature in the headers is what proves the sender")
    is_tls = parts.scheme == "https"
    if port is None:
        port = 443 if is_tls else 80
    if port not in (80, 443) and port < 1024:
        raise DestinationRefused(f"port {port} is none for webhooks; 80, 443 and 1024 to 65535 are")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii():
        raise DestinationRefused("the URL's path and query must be percent-encoded")
    host, literal = _read_host(parts.netloc, parts.hostname or "")
    return Destination(is_tls, host, port, target, literal)


def read_address(text: str) -> Address:
    """Read an address; one of IPv4 that is mapped into IPv6 is taken as what it is. Raises DestinationRefused."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise DestinationRefused("the host's address cannot be read") from error
    return getattr(address, "ipv4_mapped", None) or address


def check_addresses(destination: Destination, addresses: Sequence[Address], *, allow: Sequence[Network]) -> None:
    """Refuse a destination unless each of its addresses is open: public for https, or inside `allow`.

    One closed address among open ones refuses them all: an honest name has none. The message does not show it, since
    merchants read it and our resolver may know names that they should not.
    """
    if not addresses:
        raise DestinationRefused("the host has no address")
    for address in addresses:
        if any(address in network for network in allow):
            continue
        if not destination.is_tls:
            raise DestinationRefused("http is for the operator's own networks alone; use https")
        if not is_public(address):
            raise DestinationRefused("the host leads to an address that is not public")


def is_public(address: Address) -> bool:
    """True for an address of the open internet that one machine answers."""
    if isinstance(address, ipaddress.IPv6Address) and address not in _ALLOCATED_IPV6:
        return False
    is_unicast = not (address.is_multicast or address.is_reserved or address.is_unspecified)
    return address.is_global and is_unicast and not any(address in network for network in _NEVER_PUBLIC)


def _read_host(netloc: str, host: str) -> tuple[str, Address | None]:
    if netloc.startswith("[") or ":" in host:
        return _read_ipv6(netloc, host)
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise DestinationRefused("the URL's host is no valid international name") from error
    if _HOST.fullmatch(host) is None:
        raise DestinationRefused("the URL's host is missing or malformed")
    if _NUMBER.fullmatch(host.rpartition(".")[2]) is None:
        return host, None
    # Resolvers read 2130706433, 0x7f.1 and 0177.0.0.1 as 127.0.0.1; nobody writes a real one so.
    try:
        return host, ipaddress.IPv4Address(host)
    except ValueError as error:
        raise DestinationRefused("the URL's host is a number but no plain IPv4 address") from error


def _read_ipv6(netloc: str, host: str) -> tuple[str, Address]:
    if not netloc.startswith("[") or "%" in host:
        raise DestinationRefused("the URL's host is malformed")
    try:
        return host, read_address(str(ipaddress.IPv6Address(host)))
    except ValueError as error:
        raise DestinationRefused("the URL's host is no IPv6 address") from error
