"""The one who brings e-mails to the SMTP server: one connection and one message, within a wall-clock limit.

    dial │ TLS, or STARTTLS where it is offered │ log in │ MAIL, RCPT, DATA │ accepted, from here on it is theirs

The same e-mail is the same bytes under the same Message-ID each time, so that a second sending can be recognised.
"""

import io
import re
import smtplib
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing, suppress
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from functools import cached_property
from types import MappingProxyType

from ctrip.domain.email_layout import one_line
from ctrip.domain.emails import Email
from ctrip.domain.mailboxes import MailServer, is_address, read_mail_server, read_mailbox
from ctrip.errors import DeliveryFailed
from ctrip.outbound.dialling import TOO_LONG, Connect, Dialler, Resolve, dial, system_resolve, system_trust, words_of
from ctrip.outbound.shutting import shut_after
from ctrip.outbound.streams import Capped
from ctrip.time_limits import TimeLimit

QUIT_TIMEOUT_S = 1.0
_REFUSALS: Mapping[type[smtplib.SMTPResponseException], str] = MappingProxyType(
    {
        smtplib.SMTPConnectError: "the mail server takes no connections",
        smtplib.SMTPHeloError: "the mail server refused the greeting",
        smtplib.SMTPAuthenticationError: "the mail server refused the user and password of SMTP_URL",
        smtplib.SMTPSenderRefused: "the mail server refused the address in MAIL_FROM",
        smtplib.SMTPDataError: "the mail server refused the message",
    }
)
_ENHANCED = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}(?!\S)")


class Mailer:
    """Sends by one server in one name. `timeout_s` bounds a message from the name to the last reply.

    A certificate must be the host's, except on this machine, where nobody stands between and snake-oil certificates
    are common. A password leaves the machine under TLS alone. Safe to share between threads.
    """

    def __init__(
        self,
        smtp_url: str,
        *,
        mail_from: str,
        timeout_s: float = 30.0,
        resolve: Resolve = system_resolve,
        connect: Connect = dial,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._server = read_mail_server(smtp_url)
        self._from = read_mailbox(mail_from)
        self._timeout_s = timeout_s
        self._dialler = Dialler(resolve=resolve, connect=connect)
        self._trust = trust

    def send(self, email: Email, *, recipient: str) -> None:
        """Hand an e-mail over to the server. Raises DeliveryFailed, in words that name nobody and hold no secret."""
        if not is_address(recipient):
            raise DeliveryFailed("the recipient is no e-mail address")
        message = self._message(email, recipient)
        time_limit, server = TimeLimit(self._timeout_s), self._server
        try:
            addresses = self._dialler.addresses(server.host, server.port, time_limit=time_limit)
            with (
                closing(self._dialler.connected(addresses, server.port, time_limit=time_limit)) as plain,
                shut_after(time_limit, plain),
                closing(self._secured(plain)) as sock,
                closing(_Connection(sock, server.host)) as connection,
            ):
                self._introduce(connection)
                connection.send_message(message, _ascii(self._from.address), [_ascii(recipient)])
                connection.leave()
        except (OSError, smtplib.SMTPException) as error:
            # Not chained: the replies of a server repeat whom it was to write to.
            raise DeliveryFailed(TOO_LONG if time_limit.is_over else _words(error)) from None

    def _secured(self, plain: socket.socket) -> socket.socket:
        if not self._server.is_tls:
            return plain
        return self._trusted.wrap_socket(plain, server_hostname=self._server.host)

    def _introduce(self, connection: "_Connection") -> None:
        """Say who we are, under TLS where the server can; a password is told to nobody else."""
        server: MailServer = self._server
        connection.ehlo_or_helo_if_needed()
        may_be_plain = server.is_tls or server.is_local or server.user is None
        if not server.is_tls and (connection.has_extn("starttls") or not may_be_plain):
            connection.starttls(context=self._trusted)
        if server.user is not None and server.password is not None:
            connection.login(server.user, server.password)

    def _message(self, email: Email, recipient: str) -> EmailMessage:
        domain = _ascii(self._from.address).rpartition("@")[2]
        message = EmailMessage(policy=SMTP)
        message["Message-ID"] = f"<{email.id}@{domain}>"
        message["Date"] = email.created_at
        message["From"] = _header(self._from.address, name=_literal(self._from.name))
        message["To"] = _header(recipient)
        message["Subject"] = _literal(email.content.subject)
        # RFC 3834: out-of-office replies stay where they are.
        message["Auto-Submitted"] = "auto-generated"
        # In this encoding no line is too long for SMTP and none looks like a boundary, which therefore may be known.
        message.set_content(email.content.text, cte="quoted-printable")
        message.add_alternative(email.content.html, subtype="html", cte="quoted-printable")
        message.set_boundary(f"=_{email.id}")
        return message

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        if not self._server.is_local:
            return self._trust or system_trust()
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        return anybody


class _Connection(smtplib.SMTP):
    """A session over a socket that is connected already."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self._connected = sock
        address = sock.getsockname()[0]
        # Not the machine's name: to ask for it may take longer than all the rest. RFC 5321, 4.1.3.
        literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
        super().__init__(host, local_hostname=literal, timeout=sock.gettimeout() or QUIT_TIMEOUT_S)

    def _get_socket(self, *_: object) -> socket.socket:
        return self._connected

    def getreply(self) -> tuple[int, bytes]:
        """Read one reply, of a length that fits into memory."""
        if self.file is None and self.sock is not None:
            self.file = io.BufferedReader(Capped(self.sock.makefile("rb", buffering=0)))
        return super().getreply()

    def leave(self) -> None:
        """Say goodbye. Whatever comes of it: the server has accepted the message, and it must not be sent again."""
        with suppress(OSError, smtplib.SMTPException):
            if self.sock is not None:
                self.sock.settimeout(QUIT_TIMEOUT_S)
            self.quit()


def _literal(text: str) -> str:
    """Return a header's text on one line, with nothing in it that Python would decode: that may hold line breaks."""
    return one_line(text).replace("=?", "= ?")


def _header(address: str, *, name: str = "") -> Address:
    user, _, domain = _ascii(address).rpartition("@")
    return Address(name, username=user, domain=domain)


def _ascii(address: str) -> str:
    """Return an address whose domain any server can read. The part before it is the recipient's server's affair."""
    name, _, domain = address.rpartition("@")
    try:
        return f"{name}@{domain.encode('idna').decode()}"
    except UnicodeError:
        raise DeliveryFailed("the domain of an address is none that can be looked up") from None


def _words(error: Exception) -> str:
    """Say what went wrong without what the server said: it may repeat the recipient, or what it was told."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, said = next(iter(error.recipients.values()))
        return f"the mail server refused the recipient ({_codes(code, said)})"
    if isinstance(error, smtplib.SMTPResponseException):
        words = _REFUSALS.get(type(error), "the mail server refused")
        return f"{words} ({_codes(error.smtp_code, error.smtp_error)})"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "the mail server does not offer what is needed: STARTTLS, a login, or addresses in UTF-8"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "the mail server closed the connection before it had accepted the message"
    if isinstance(error, smtplib.SMTPException):
        return "the mail server offers no way to log in that is known here"
    return words_of(error)


def _codes(code: int, said: bytes | str) -> str:
    """Write a reply's code and, where it has one, its enhanced status (RFC 3463)."""
    enhanced = _ENHANCED.match(said.encode(errors="replace") if isinstance(said, str) else said)
    return str(code) if enhanced is None else f"{code} {enhanced[0].decode()}"
