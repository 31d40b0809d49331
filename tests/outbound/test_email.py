import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ctrip.domain.emails import Content, Email, EmailKind
from ctrip.errors import DeliveryFailed
from ctrip.outbound.dialling import dial
from ctrip.outbound.email import Mailer
from tests.certificates import self_signed
from tests.factories import NOON
from tests.outbound.peers import drips, floods, silence
from tests.post_office import PASSWORD, URL_CREDENTIALS, USER, PostOffice

BUYER = "buyer@example.com"
CONTENT = Content(
    subject="Payment confirmed: 12.5 USDC", text="Naïve text\n" + "x" * 2_000 + "\n.\n--\n", html="<p>Näive &amp;</p>\n"
)
EMAIL = Email("eml_01TEST", EmailKind.PAYMENT_CONFIRMED_BUYER, BUYER, CONTENT, attempts=0, created_at=NOON)


def mailer(url: str, *, mail_from: str = "A Shop <shop@shop.example>", **options: Any) -> Mailer:
    return Mailer(url, mail_from=mail_from, **{"timeout_s": 10, **options})


def send(url: str, *, email: Email = EMAIL, recipient: str = BUYER, **options: Any) -> None:
    mailer(url, **options).send(email, recipient=recipient)


def saying(subject: str) -> Email:
    content = Content(subject=subject, text="text", html="<p>html</p>")
    return Email("eml_01TEST", EmailKind.DEAD_LETTERS, None, content, attempts=0, created_at=NOON)


def refusal(url: str, **options: Any) -> str:
    """What is said of an e-mail that was not taken; it never names the recipient or the password."""
    with pytest.raises(DeliveryFailed) as failed:
        send(url, **options)
    assert failed.value.__cause__ is None, "a traceback would show what the server said"
    assert failed.value.__suppress_context__ or failed.value.__context__ is None
    for kept in (BUYER, "buyer", USER, "hunter2"):
        assert kept not in failed.value.detail
    return failed.value.detail


@pytest.fixture
def office() -> Iterator[PostOffice]:
    with PostOffice() as office:
        yield office


# --- what arrives ---------------------------------------------------------------------------------------------------


def test_a_message_arrives_whole_as_text_and_as_html(office: PostOffice) -> None:
    send(office.url)
    (mail,) = office.received
    assert (mail.sender, mail.recipients) == ("shop@shop.example", (BUYER,))
    message = mail.message
    assert {name: str(message[name]) for name in ("From", "To", "Subject", "Message-ID", "Auto-Submitted")} == {
        "From": "A Shop <shop@shop.example>",
        "To": BUYER,
        "Subject": CONTENT.subject,
        "Message-ID": "<eml_01TEST@shop.example>",
        "Auto-Submitted": "auto-generated",
    }
    assert message["Date"].datetime == NOON
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert mail.part("plain") == CONTENT.text
    assert mail.part("html") == CONTENT.html
    assert max(map(len, mail.raw.split(b"\r\n"))) <= 998


def test_the_same_e_mail_is_the_same_bytes_each_time(office: PostOffice) -> None:
    send(office.url)
    send(office.url)
    first, second = office.received
    assert first.raw == second.raw


@pytest.mark.parametrize(
    "subject",
    [
        "Hi\r\nBcc: all@x.example",
        "Hi\nX-Evil: yes\n\nbody",
        "Hi\x00\x0b\x0c\u2028\u2029Bcc: x",
        "ü" * 3_000,
        "Hi =?utf-8?q?=0D=0ABcc:_all@x.example?=",
        "x" * 5_000,
    ],
)
def test_no_subject_makes_another_header(office: PostOffice, subject: str) -> None:
    send(office.url, email=saying(subject))
    (mail,) = office.received
    names = [name for name, _ in mail.message.items()]
    assert names == ["Message-ID", "Date", "From", "To", "Subject", "Auto-Submitted", "MIME-Version", "Content-Type"]
    assert mail.recipients == (BUYER,)
    assert mail.part("plain").strip() == "text"
    head = mail.raw.partition(b"\r\n\r\n")[0]
    assert b"\n\r" not in head
    assert max(map(len, head.split(b"\r\n"))) <= 998


@pytest.mark.parametrize(
    ("mail_from", "shown"),
    [
        ("shop@shop.example", "shop@shop.example"),
        ("Bücher, Söhne & Co <shop@shop.example>", '"Bücher, Söhne & Co" <shop@shop.example>'),
        ('A "good" shop <shop@shop.example>', '"A \\"good\\" shop" <shop@shop.example>'),
        ("漢字の店 <shop@shop.example>", "漢字の店 <shop@shop.example>"),
        (
            "=?utf-8?q?a=0D=0ABcc:_all@x.example?= <shop@shop.example>",
            '"= ?utf-8?q?a=0D=0ABcc:_all@x.example?=" <shop@shop.example>',
        ),
    ],
)
def test_any_name_of_ours_is_readable_at_the_other_end(office: PostOffice, mail_from: str, shown: str) -> None:
    send(office.url, mail_from=mail_from)
    (mail,) = office.received
    assert str(mail.message["From"]) == shown
    assert mail.sender == "shop@shop.example"


def test_a_domain_in_other_letters_is_written_so_that_any_server_can_read_it(office: PostOffice) -> None:
    send(office.url, recipient="buyer@bücher.example")
    (mail,) = office.received
    assert mail.recipients == ("buyer@xn--bcher-kva.example",)


def test_an_address_in_other_letters_needs_a_server_that_can_write_to_it() -> None:
    with PostOffice(options={"enable_SMTPUTF8": False}) as old:
        assert "UTF-8" in refusal(old.url, recipient="bücher@shop.example")
    with PostOffice(options={"enable_SMTPUTF8": True}) as modern:
        send(modern.url, recipient="bücher@shop.example")
        assert modern.received[0].recipients == ("bücher@shop.example",)


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "nobody",
        "a@b.example\r\nRCPT TO:<x@y.example>",
        "a@b.example, c@d.example",
        "<a@b.example>",
        f"a@{'x' * 64}.de",
    ],
)
def test_what_is_no_address_is_not_even_dialled(recipient: str) -> None:
    def connect(*_: Any) -> socket.socket:
        raise AssertionError("dialled")

    refusal("smtp://127.0.0.1", recipient=recipient, connect=connect)


# --- privacy --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed("mail.example", tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def served(certificate: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    return tls


def abroad(office: PostOffice, **options: Any) -> dict[str, Any]:
    """How to reach the office under a name that is not this machine's."""
    return {
        "resolve": lambda _host, _port: ["127.0.0.1"],
        "connect": lambda _address, _port, timeout_s: dial("127.0.0.1", office.port, timeout_s),
        **options,
    }


def test_tls_is_begun_where_it_is_offered_and_the_login_comes_after_it(
    served: ssl.SSLContext, certificate: Path
) -> None:
    trust = ssl.create_default_context(cafile=str(certificate))
    with PostOffice(starttls=served, options={"require_starttls": True, "auth_required": True}) as office:
        send(f"smtp://{URL_CREDENTIALS}@mail.example", **abroad(office, trust=trust))
        (mail,) = office.received
        assert (mail.is_private, mail.is_known) == (True, True)
        assert office.logins == [(USER, PASSWORD)]


def test_smtps_speaks_tls_from_the_first_byte(served: ssl.SSLContext, certificate: Path) -> None:
    trust = ssl.create_default_context(cafile=str(certificate))
    with PostOffice(tls=served, options={"auth_require_tls": False}) as office:
        send(f"smtps://{URL_CREDENTIALS}@mail.example", **abroad(office, trust=trust))
        assert office.received[0].is_private


@pytest.mark.parametrize("url", [f"smtp://{URL_CREDENTIALS}@mail.example", "smtp://mail.example"])
def test_a_certificate_of_an_unknown_authority_is_refused(served: ssl.SSLContext, url: str) -> None:
    with PostOffice(starttls=served) as office:
        assert "certificate" in refusal(url, **abroad(office))
        assert (office.received, office.logins) == ([], [])


def test_a_certificate_for_another_name_is_refused(served: ssl.SSLContext, certificate: Path) -> None:
    trust = ssl.create_default_context(cafile=str(certificate))
    with PostOffice(starttls=served) as office:
        assert "certificate" in refusal("smtp://other.example", **abroad(office, trust=trust))


def test_a_password_leaves_the_machine_under_tls_alone() -> None:
    with PostOffice(options={"auth_require_tls": False}) as office:
        assert "STARTTLS" in refusal(f"smtp://{URL_CREDENTIALS}@mail.example", **abroad(office))
        assert (office.received, office.logins) == ([], [])


def test_without_a_password_a_server_abroad_may_do_without_tls() -> None:
    with PostOffice() as office:
        send("smtp://mail.example", **abroad(office))
        assert not office.received[0].is_private


def test_on_this_machine_a_password_needs_no_tls() -> None:
    with PostOffice(options={"auth_require_tls": False}) as office:
        send(f"smtp://{URL_CREDENTIALS}@127.0.0.1:{office.port}")
        assert office.received[0].is_known


def test_on_this_machine_any_certificate_will_do(served: ssl.SSLContext) -> None:
    with PostOffice(starttls=served) as office:
        send(f"smtp://localhost:{office.port}")
        assert office.received[0].is_private


# --- refused --------------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_told_without_it() -> None:
    with PostOffice(options={"auth_require_tls": False}) as office:
        said = refusal(f"smtp://{USER}:hunter2@127.0.0.1:{office.port}")
    assert said == "the mail server refused the user and password of SMTP_URL (535 5.7.8)"


def test_a_server_that_knows_no_login_is_told_of(office: PostOffice) -> None:
    assert "login" in refusal(f"smtp://{URL_CREDENTIALS}@127.0.0.1:{office.port}")


@pytest.mark.parametrize(
    ("reply", "codes"),
    [
        ("450 4.2.1 <buyer@example.com> is busy", "450 4.2.1"),
        (f"550 5.1.1 <{BUYER}>: user unknown", "550 5.1.1"),
        (f"554 {BUYER} is blocked by hunter2", "554"),
    ],
)
def test_a_refusal_is_told_by_its_codes_alone(office: PostOffice, reply: str, codes: str) -> None:
    office.answer_recipient = lambda _: reply
    assert refusal(office.url) == f"the mail server refused the recipient ({codes})"
    office.answer_recipient, office.answer_message = lambda _: None, lambda _: reply
    assert refusal(office.url) == f"the mail server refused the message ({codes})"


def test_where_nobody_listens_the_connection_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert refusal(f"smtp://127.0.0.1:{port}") == "the connection was refused"


def test_a_name_that_nobody_knows_is_told_of() -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert "could not be resolved" in refusal("smtp://mail.example", resolve=resolve)


# --- misbehaved -----------------------------------------------------------------------------------------------------

Behaviour = Callable[[socket.socket], None]


@contextmanager
def server(behave: Behaviour) -> Iterator[str]:
    """A server that does this with each connection; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.settimeout(20)
                    behave(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"smtp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def script(*replies: bytes, then: Behaviour = socket.socket.close) -> Behaviour:
    """Greet, then answer each line in turn (and the message as one), and at last do something else."""

    def behave(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        for number, reply in enumerate(replies):
            if number:
                line = lines.readline()
                while replies[number - 1].startswith(b"354") and line != b".\r\n":
                    line = lines.readline()
            connection.sendall(reply)
        then(connection)

    return behave


def hangs_up(_: socket.socket) -> None:
    pass


HELLO = (b"220 hello\r\n", b"250 hello\r\n")
TO_DATA = (*HELLO, b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n")
LATE = "the destination took too long"
CLOSED = "the mail server closed the connection before it had accepted the message"


MISBEHAVED = {
    "never says a word": (silence, LATE),
    "greets and falls silent": (script(HELLO[0], then=silence), LATE),
    "falls silent over the message": (script(*TO_DATA, then=silence), LATE),
    "drips a greeting that never ends": (drips(b"220-hello\r\n"), LATE),
    "drips a line that never ends": (drips(b"2"), LATE),
    "drips in the middle": (script(*HELLO, then=drips(b"250-ok\r\n")), LATE),
    "floods": (floods(b"220-hello\r\n" * 1_000), "the mail server"),
    "floods in the middle": (script(*HELLO, then=floods(b"250-ok\r\n" * 1_000)), "the mail server"),
    "hangs up at once": (hangs_up, CLOSED),
    "hangs up in the middle": (script(*HELLO), CLOSED),
    "hangs up over the message": (script(*TO_DATA), CLOSED),
    "is busy": (script(b"421 4.3.2 busy\r\n"), "the mail server takes no connections (421 4.3.2)"),
    "refuses the sender": (script(*HELLO, b"553 no\r\n"), "the mail server refused the address in MAIL_FROM (553)"),
    "talks nonsense": (script(b"HTTP/1.1 200 OK\r\n\r\n"), "the mail server takes no connections (-1)"),
}
"""What a server does, and what is said of it."""


@pytest.mark.parametrize(("behave", "words"), MISBEHAVED.values(), ids=MISBEHAVED)
def test_whatever_a_server_does_it_ends_in_time(behave: Behaviour, words: str) -> None:
    with server(behave) as url:
        begun = time.monotonic()
        assert refusal(url, timeout_s=0.4 if words == LATE else 10).startswith(words)
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "then", [hangs_up, silence, floods(b"221-bye\r\n" * 1_000)], ids=["hangs up", "is silent", "floods"]
)
def test_what_was_accepted_is_sent_however_the_server_says_goodbye(then: Behaviour) -> None:
    with server(script(*TO_DATA, b"250 accepted\r\n", then=then)) as url:
        send(url)


def test_a_name_that_never_resolves_ends_in_time() -> None:
    answered = threading.Event()

    def resolve(_host: str, _port: int) -> list[str]:
        answered.wait(20)
        return []

    begun = time.monotonic()
    assert refusal("smtp://mail.example", resolve=resolve, timeout_s=0.3) == LATE
    assert time.monotonic() - begun < 3
    answered.set()


def test_a_tls_handshake_that_stalls_ends_in_time() -> None:
    with server(silence) as url:
        assert refusal(url.replace("smtp:", "smtps:"), timeout_s=0.3) == LATE


def test_two_threads_may_send_at_once(office: PostOffice) -> None:
    both, ours = threading.Barrier(2), mailer(office.url)

    def run() -> None:
        both.wait(5)
        ours.send(EMAIL, recipient=BUYER)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(office.received) == 2
