"""A real SMTP server on loopback that keeps what it gets, and answers as it is told."""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as Server
from aiosmtpd.smtp import AuthResult, Envelope, Session

USER, PASSWORD = "mail-user", "p@ss:/hunter2"
URL_CREDENTIALS = "mail-user:p%40ss%3A%2Fhunter2"


@dataclass(frozen=True)
class Mail:
    """One message, as it came. `is_private`: under TLS; `is_known`: after a login."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    is_private: bool
    is_known: bool

    @property
    def message(self) -> EmailMessage:
        """The message, parsed."""
        return message_from_bytes(self.raw, EmailMessage, policy=SMTP)

    def part(self, kind: str) -> str:
        """The text of the part that is `plain` or `html`."""
        found = self.message.get_body((kind,))
        assert found is not None
        return str(found.get_content()).replace("\r\n", "\n")


@dataclass
class PostOffice:
    """Use it as a context manager. The answers are replies such as `550 no`, or None to accept."""

    starttls: ssl.SSLContext | None = None
    tls: ssl.SSLContext | None = None
    options: dict[str, Any] = field(default_factory=dict)
    answer_recipient: Callable[[str], str | None] = lambda _: None
    answer_message: Callable[[Mail], str | None] = lambda _: None
    received: list[Mail] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def __enter__(self) -> "PostOffice":
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._controller = _Controller(
            listener,
            self,
            ssl_context=self.tls,
            tls_context=self.starttls,
            authenticator=self._login,
            **self.options,
        )
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    # What aiosmtpd calls, by its names.

    async def handle_RCPT(
        self, _server: Server, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        refusal = self.answer_recipient(address)
        if refusal is None:
            envelope.rcpt_tos.append(address)
        return refusal or "250 OK"

    async def handle_DATA(self, _server: Server, session: Session, envelope: Envelope) -> str:
        raw = envelope.original_content
        assert raw is not None
        assert envelope.mail_from is not None
        is_private = self.tls is not None or session.ssl is not None
        mail = Mail(envelope.mail_from, tuple(envelope.rcpt_tos), raw, is_private, bool(session.authenticated))
        self.received.append(mail)
        return self.answer_message(mail) or "250 OK"

    def _login(self, _server: Server, _session: Session, _envelope: Envelope, _method: str, told: Any) -> AuthResult:
        pair = (told.login.decode(), told.password.decode())
        self.logins.append(pair)
        return AuthResult(success=pair == (USER, PASSWORD), handled=False)


class _Controller(Controller):
    """Listens on a socket that is bound already, so that nobody else can have taken its port meanwhile."""

    def __init__(self, listener: socket.socket, handler: PostOffice, **options: Any) -> None:
        super().__init__(handler, hostname="127.0.0.1", port=handler.port, **options)
        self._listener = listener

    def _create_server(self) -> Any:
        return self.loop.create_server(self._factory_invoker, sock=self._listener, ssl=self.ssl_context)
