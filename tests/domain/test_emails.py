import re
from datetime import timedelta
from html.parser import HTMLParser

import pytest

from ctrip.domain.addresses import checksum_address
from ctrip.domain.email_layout import LONGEST_SUBJECT, one_line
from ctrip.domain.emails import (
    GAPS_S,
    Content,
    Mourned,
    confirmed_to_buyer,
    confirmed_to_merchant,
    dead_letters,
    endpoint_disabled,
    next_attempt_at,
)
from ctrip.domain.mailboxes import Mailbox, MailServer, read_mail_server, read_mailbox
from ctrip.domain.webhook_endpoints import DisabledReason
from tests.factories import ADDRESS, NOON, make_payment

HOSTILE = '<img src=x onerror="alert(1)">&\r\nBcc: all@x.example\u202e'
PAYMENT = make_payment(
    amount=12_500_000,
    confirmed=13_000_001,
    order_id="1001",
    customer_email="buyer@example.com",
    metadata={"secret": "metadata-hunter2"},
    webhook_url="https://shop.example/hooks?token=hunter2",
    confirmed_at=NOON,
)
LETTER = Mourned("dlt_1", "webhook", "send_webhook", "schedule", "HTTP 500")
CONTENTS = {
    "buyer": confirmed_to_buyer(PAYMENT, merchant_name="Bücher & Co"),
    "merchant": confirmed_to_merchant(PAYMENT),
    "endpoint": endpoint_disabled(url="https://x.example/h", reason=DisabledReason.FAILING, failing_since=NOON),
    "digest": dead_letters([LETTER] * 3, more=2),
    "long": confirmed_to_merchant(make_payment(order_id="x" * 255, confirmed=1)),
    "hostile buyer": confirmed_to_buyer(make_payment(order_id=HOSTILE), merchant_name=HOSTILE),
    "hostile merchant": confirmed_to_merchant(make_payment(order_id=HOSTILE, customer_email=HOSTILE)),
    "hostile endpoint": endpoint_disabled(url=HOSTILE, reason=DisabledReason.GONE, failing_since=None),
    "hostile digest": dead_letters([Mourned("dlt_1", "webhook", HOSTILE, HOSTILE, HOSTILE)], more=0),
}
every_content = pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)


class Reader(HTMLParser):
    """What a page shows, which elements it has, and whether each of them is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.shown, self.tags, self.open = "", set[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "background", "action"}, "nothing is fetched or led to"
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown += f" {data}"


def words(text: str) -> str:
    return " ".join(text.split())


# --- what they say --------------------------------------------------------------------------------------------------


def test_the_buyer_reads_who_has_received_what_where(content: Content = CONTENTS["buyer"]) -> None:
    assert content.subject == "Bücher & Co has received your payment of 13.000001 USDC"
    for said in ("1001", "12.5 USDC", "13.000001 USDC", "anvil", checksum_address(ADDRESS), "2026-11-22 12:00 UTC"):
        assert said in content.text
    assert "pay_" not in content.text, "our own names are of no use to a buyer"


def test_the_merchant_reads_which_order_can_go_and_whose_it_is(content: Content = CONTENTS["merchant"]) -> None:
    assert content.subject == "Payment confirmed: 13.000001 USDC for order 1001"
    for said in ("12.5 USDC", "anvil", checksum_address(ADDRESS), "buyer@example.com", PAYMENT.id):
        assert said in content.text


def test_what_a_payment_does_not_have_is_not_spoken_of() -> None:
    bare = make_payment(confirmed=1_000)
    for content in (confirmed_to_merchant(bare), confirmed_to_buyer(bare, merchant_name="A shop")):
        assert "None" not in content.subject + content.text
        assert "Order" not in content.text
    assert confirmed_to_merchant(bare).subject == "Payment confirmed: 0.001 USDC"


@pytest.mark.parametrize("amount", [1, 10**30, 2**256 - 1])
def test_amounts_are_exact_however_long(amount: int) -> None:
    content = confirmed_to_merchant(make_payment(amount=amount, confirmed=amount, decimals=18, symbol="DAI"))
    (shown,) = set(re.findall(r"([\d.]+) DAI", content.text))
    whole, _, fraction = shown.partition(".")
    assert int(whole) * 10**18 + int(fraction.ljust(18, "0")) == amount


@pytest.mark.parametrize("reason", DisabledReason)
def test_the_owner_of_an_endpoint_reads_why_it_is_disabled(reason: DisabledReason) -> None:
    content = endpoint_disabled(url="https://shop.example/hooks", reason=reason, failing_since=NOON)
    assert "https://shop.example/hooks" in content.text
    assert "2026-11-22 12:00 UTC" in content.text
    others = {endpoint_disabled(url="", reason=each, failing_since=None).text for each in DisabledReason}
    assert len(others) == len(DisabledReason), "each has words of its own"


def test_a_digest_counts_by_kind_and_says_what_to_type() -> None:
    content = dead_letters(
        [*[LETTER] * 3, Mourned("dlt_2", "listener", "listen_for_payments", "retries", "ValueError")], more=0
    )
    assert content.subject == "cTrip: 4 new dead letters"
    assert "3 in webhook   send_webhook, schedule, HTTP 500" in content.text
    assert "1 in listener  listen_for_payments, retries, ValueError" in content.text
    for command in ("list --queue webhook", "list --queue listener", "show dlt_1", "replay dlt_1"):
        assert f"\n    ctrip dlq {command}\n" in content.text
    assert "more" not in content.text.partition("--")[0]


def test_a_digest_of_very_many_letters_stays_short_and_says_how_many_more() -> None:
    many = [Mourned(f"dlt_{n}", "webhook", f"actor_{n}", "retries", "ValueError") for n in range(1_000)]
    content = dead_letters(many, more=234)
    assert content.subject == "cTrip: 1234 new dead letters"
    assert "and 1214 more" in content.text
    assert len(content.html) < 20_000
    assert content.text.count("dlt_") == 12


def test_one_dead_letter_is_told_in_the_singular() -> None:
    assert dead_letters([LETTER], more=0).subject == "cTrip: 1 new dead letter"


# --- how they are written -------------------------------------------------------------------------------------------


@every_content
def test_the_html_is_whole_fetches_nothing_and_shows_what_the_text_says(content: Content) -> None:
    page = Reader(content.html)
    assert page.open == []
    assert not page.tags & {"img", "script", "link", "iframe", "a", "form", "style"}
    for line in content.text.replace("-- \n", "").splitlines():
        for part in re.split(r"  +", line.strip()):
            assert words(part) in words(page.shown)


@every_content
def test_what_strangers_wrote_stays_on_its_line(content: Content) -> None:
    assert content.subject.isprintable()
    assert len(content.subject) <= LONGEST_SUBJECT
    for part in (content.text, content.html):
        assert all(char.isprintable() or char == "\n" for char in part)
        assert "\nBcc:" not in part


@every_content
def test_no_secret_of_a_payment_is_told(content: Content) -> None:
    assert "hunter2" not in content.subject + content.text + content.html


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a  b\t\r\nc\x00d\u2028e", "a b c d e"),
        ("\u202egnp.exe", "gnp.exe"),
        ("é 漢字 ✓", "é 漢字 ✓"),
        ("x" * 21, "x" * 19 + "…"),
    ],
)
def test_a_line_is_one_line(text: str, line: str) -> None:
    assert one_line(text, longest=20) == line


# --- when they are tried --------------------------------------------------------------------------------------------


def test_three_attempts_from_ten_seconds_doubling() -> None:
    waits = [next_attempt_at(attempt, ended_at=NOON) for attempt in (1, 2, 3)]
    assert waits == [NOON + timedelta(seconds=10), NOON + timedelta(seconds=20), None]
    assert GAPS_S[0] == 0


# --- where they leave from ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        ("shop@shop.example", Mailbox("", "shop@shop.example")),
        ("A Shop <shop@shop.example>", Mailbox("A Shop", "shop@shop.example")),
        ('"Bücher, Söhne & Co" <shop@shop.example>', Mailbox("Bücher, Söhne & Co", "shop@shop.example")),
        (" <shop@shop.example> ", Mailbox("", "shop@shop.example")),
    ],
)
def test_a_mailbox_is_an_address_with_or_without_a_name(text: str, mailbox: Mailbox) -> None:
    assert read_mailbox(text) == mailbox


@pytest.mark.parametrize(
    "text",
    [
        "",
        "shop",
        "A Shop",
        "A Shop <shop>",
        "A Shop shop@shop.example>",
        "A Shop <shop@shop.example",
        "a@shop.example, b@shop.example",
        "A\nBcc: x@y.example <shop@shop.example>",
        "x" * 201 + " <shop@shop.example>",
    ],
)
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="mailbox"):
        read_mailbox(text)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example", MailServer("mail.example", 587, is_tls=False)),
        ("smtp://mail.example:25/", MailServer("mail.example", 25, is_tls=False)),
        ("smtps://mail.example", MailServer("mail.example", 465, is_tls=True)),
        ("smtp://[::1]:1025", MailServer("::1", 1025, is_tls=False)),
        (
            "smtps://me%40shop.example:p%40ss%3A%2Fword@mail.example:4650",
            MailServer("mail.example", 4650, is_tls=True, user="me@shop.example", password="p@ss:/word"),
        ),
    ],
)
def test_a_mail_server_is_written_as_a_url(url: str, server: MailServer) -> None:
    assert read_mail_server(url) == server
    assert "word" not in repr(server), "a password is not shown"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example",
        "http://mail.example",
        "smtp://",
        "smtp://:587",
        "smtp://mail.example:0",
        "smtp://mail.example:70000",
        "smtp://mail.example:port",
        "smtp://mail.example/inbox",
        "smtp://mail.example?tls=no",
        "smtp://mail.example#x",
        "smtp://user@mail.example",
        "smtp://user:p@ss@mail.example",
        "smtp://user:p%C3%A4ss@mail.example",
        "smtp://user:pass@mail.example\r\nRSET",
    ],
)
def test_what_is_no_mail_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        read_mail_server(url)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True), ("mail.example", False)]
    + [(host, False) for host in ("10.0.0.1", "localhost.example", "[::2]", "0.0.0.0")],
)
def test_only_this_machine_is_local(host: str, is_local: bool) -> None:
    assert read_mail_server(f"smtp://{host}").is_local is is_local
