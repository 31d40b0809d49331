import gzip
import ipaddress
import os
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctrip.errors import DeliveryFailed
from ctrip.outbound.http import Answer, Poster
from tests.certificates import self_signed
from tests.outbound.peers import (
    Behaviour,
    Peer,
    answers,
    drips,
    floods,
    mute_peer,
    peer,
    says,
    silence,
)
from tests.waiting import wait_until

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
OK = b"HTTP/1.1 200 OK\r\n"
SHORT_S = 0.4
LONG_S = 10.0
TOO_LONG = "the destination took too long"


def post(url: str, *, timeout_s: float = LONG_S, **changes: Any) -> Answer:
    poster = Poster(allow=LOOPBACK, timeout_s=timeout_s, **changes)
    return poster.post(url, body=b'{"id":"evt_1"}', headers={"webhook-id": "evt_1"})


def post_to(behave: Behaviour, *, timeout_s: float = LONG_S) -> Answer:
    with peer(behave) as there:
        return post(there.url, timeout_s=timeout_s)


# --- what is sent ---------------------------------------------------------------------------------------------------


def test_the_request_is_one_plain_post_that_asks_for_no_compression_and_no_second_request() -> None:
    with peer(answers(200)) as there:
        post(f"http://127.0.0.1:{there.port}/hooks/a?b=c&d")
    head, _, body = there.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /hooks/a?b=c&d HTTP/1.1"
    assert dict(line.split(": ") for line in lines) == {
        "Host": f"127.0.0.1:{there.port}",
        "Accept-Encoding": "identity",
        "Content-Length": "14",
        "webhook-id": "evt_1",
        "Connection": "close",
    }
    assert body == b'{"id":"evt_1"}'


def test_a_url_without_a_path_asks_for_the_root() -> None:
    with peer(answers(200)) as there:
        post(f"http://127.0.0.1:{there.port}?a=1")
    assert there.requests[0].startswith(b"POST /?a=1 HTTP/1.1\r\n")


def test_the_checked_address_is_dialled_under_the_name_that_the_url_has() -> None:
    with peer(answers(200)) as there:
        answer = post(f"http://shop.example:{there.port}/", resolve=lambda _host, _port: ["127.0.0.1"])
    assert answer.status_code == 200
    assert f"\r\nHost: shop.example:{there.port}\r\n".encode() in there.requests[0]


def test_no_proxy_of_the_environment_is_asked(monkeypatch) -> None:
    with peer(answers(502)) as proxy, peer(answers(200)) as there:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert post(there.url).status_code == 200
        assert proxy.requests == []


def test_the_next_address_is_dialled_where_one_does_not_answer() -> None:
    dialled = []

    def connect(address: str, port: int, timeout_s: float) -> socket.socket:
        dialled.append(address)
        return socket.create_connection((address, port), timeout_s)

    with peer(answers(200)) as there:
        url = f"http://shop.example:{there.port}/"
        answer = post(url, resolve=lambda _host, _port: ["127.0.0.2", "127.0.0.1"], connect=connect)
    assert (answer.status_code, dialled) == (200, ["127.0.0.2", "127.0.0.1"])


# --- what comes back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 301, 302, 307, 308, 400, 404, 410, 429, 500, 503])
def test_every_answer_is_returned_with_its_status(status: int) -> None:
    assert post_to(answers(status)).status_code == status


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_never_followed(status: int) -> None:
    with peer(answers(200)) as hidden, peer(answers(status, f"Location: {hidden.url}")) as there:
        assert post(there.url).status_code == status
        assert (len(there.requests), hidden.requests) == (1, [])


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", ""),
        (b"thanks", "thanks"),
        (b"x" * 1024, "x" * 1024),
        (b"x" * 1025, "x" * 1024),
        (b"a\x00b", "a\ufffdb"),
        (b"\xff", "\ufffd"),
        (("é" * 600).encode(), "é" * 512),
    ],
)
def test_the_first_kibibyte_of_the_body_is_kept_as_text_that_postgres_can_store(body: bytes, shown: str) -> None:
    assert post_to(answers(200, body=body)).response == shown


def test_a_body_ends_at_its_length_where_the_server_leaves_the_connection_open() -> None:
    began = time.monotonic()
    assert post_to(answers(200, body=b"thanks", keeps_open=True)).response == "thanks"
    assert time.monotonic() - began < LONG_S / 2


def test_a_chunked_body_is_put_together() -> None:
    chunks = b"Transfer-Encoding: chunked\r\n\r\n3\r\ntha\r\n3;x=y\r\nnks\r\n0\r\n\r\n"
    assert post_to(says(OK + chunks, then=silence)).response == "thanks"


@pytest.mark.parametrize(
    ("headers", "retry_after_s"),
    [
        ([], None),
        (["Retry-After: 120"], 120),
        (["Retry-After: 0"], 0),
        (["Retry-After: 99999999999999999999"], 999_999_999),
        (["Retry-After: -5"], None),
        (["Retry-After: soon"], None),
        (["Retry-After: \xb2"], None),
        (["Date: Sun, 22 Nov 2026 12:00:00 GMT", "Retry-After: Sun, 22 Nov 2026 12:02:00 GMT"], 120),
        (["Date: Sun, 22 Nov 2026 12:00:00 GMT", "Retry-After: Sun, 22 Nov 2026 11:00:00 GMT"], 0),
        (["Date: Sun, 22 Nov 2026 12:00:00 GMT", "Retry-After: Sun, 22 Nov 2026 12:02:00 +99999999999"], None),
        (["Retry-After: Sun, 22 Nov 2026 12:02:00 GMT"], None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date_against_the_answers_own(headers, retry_after_s) -> None:
    assert post_to(answers(503, *headers)).retry_after_s == retry_after_s


# --- the deadline ---------------------------------------------------------------------------------------------------

STATUS_CAME: list[tuple[str, Behaviour]] = [
    ("headers that drip", says(OK, then=drips(b"X-Slow: yes\r\n"))),
    ("a body that drips", says(OK + b"\r\n", then=drips(b"x"))),
    ("a body that drips in chunks", says(OK + b"Transfer-Encoding: chunked\r\n\r\n", then=drips(b"1\r\nx\r\n"))),
    ("headers and then silence", says(OK + b"Content-Length: 5\r\n\r\n", then=silence)),
    ("half the headers and then silence", says(OK + b"Content-Le", then=silence)),
]
NO_STATUS_CAME: list[tuple[str, Behaviour]] = [
    ("silence", silence),
    ("a status line that drips", drips(b"H")),
    ("a status line that is never whole", says(b"HTTP/1.1 200 OK", then=silence)),
    ("interim answers without end", drips(b"HTTP/1.1 100 Continue\r\n\r\n")),
]


@pytest.mark.parametrize("behave", [pytest.param(behave, id=name) for name, behave in STATUS_CAME])
def test_what_follows_the_status_line_ends_at_the_deadline_and_takes_nothing_back(behave: Behaviour) -> None:
    began = time.monotonic()
    answer = post_to(behave, timeout_s=SHORT_S)
    assert answer.status_code == 200
    assert SHORT_S * 0.9 <= time.monotonic() - began < LONG_S / 2


@pytest.mark.parametrize("behave", [pytest.param(behave, id=name) for name, behave in NO_STATUS_CAME])
def test_an_attempt_ends_at_the_deadline_where_no_status_line_comes(behave: Behaviour) -> None:
    began = time.monotonic()
    with pytest.raises(DeliveryFailed, match=TOO_LONG):
        post_to(behave, timeout_s=SHORT_S)
    assert SHORT_S * 0.9 <= time.monotonic() - began < LONG_S / 2


def test_what_a_drip_brought_before_the_deadline_is_kept() -> None:
    response = post_to(says(OK + b"\r\n", then=drips(b"x")), timeout_s=SHORT_S).response
    assert response
    assert set(response) == {"x"}


def test_a_tls_handshake_that_stalls_ends_at_the_deadline() -> None:
    with mute_peer() as there, pytest.raises(DeliveryFailed, match=TOO_LONG):
        post(f"https://127.0.0.1:{there.port}/", timeout_s=SHORT_S)


def test_a_name_that_is_not_resolved_ends_at_the_deadline() -> None:
    answered = threading.Event()

    def resolve(_host: str, _port: int) -> list[str]:
        answered.wait(LONG_S)
        return ["127.0.0.1"]

    began = time.monotonic()
    with pytest.raises(DeliveryFailed, match=TOO_LONG):
        post("http://slow.example/", timeout_s=SHORT_S, resolve=resolve)
    assert time.monotonic() - began < LONG_S / 2
    answered.set()


def test_a_request_that_the_other_side_does_not_read_ends_at_the_deadline() -> None:
    poster = Poster(allow=LOOPBACK, timeout_s=SHORT_S)
    with mute_peer() as there, pytest.raises(DeliveryFailed, match=TOO_LONG):
        poster.post(there.url, body=bytes(50_000_000), headers={})


def test_nothing_stays_behind_after_an_attempt() -> None:
    def open_things() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), sum(t.name.startswith("Timer") for t in threading.enumerate())

    with peer(says(OK, then=drips(b"X: y\r\n"))) as slow, peer(answers(200)) as quick:
        before = open_things()
        for _ in range(3):
            post(slow.url, timeout_s=0.1)
            post(quick.url)
        wait_until(lambda: open_things() <= before, within_s=5, what="no descriptor and no timer more than before")


# --- how much is read -----------------------------------------------------------------------------------------------

BIG = bytes(10_000_000)
BOMB = gzip.compress(bytes(50_000_000))
GREEDY: list[tuple[str, Behaviour]] = [
    ("ten megabytes", answers(200, body=BIG)),
    ("a gzip bomb", answers(200, "Content-Encoding: gzip", body=BOMB)),
    ("a body without end", says(OK + b"\r\n", then=floods(bytes(65_536)))),
    ("a chunk of negative size", says(OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", then=floods(bytes(65_536)))),
    ("a chunk of an odd size", says(OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n", then=floods(bytes(65_536)))),
    ("a header without end", says(OK + b"X: ", then=floods(b"y" * 65_536))),
    ("headers without end", says(OK, then=floods(b"X: y\r\n" * 10_000))),
    ("trailers without end", says(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", then=floods(b"X: y\r\n" * 10_000))),
]


@pytest.mark.parametrize("behave", [pytest.param(behave, id=name) for name, behave in GREEDY])
def test_an_answer_costs_less_than_a_megabyte_whatever_its_size(behave: Behaviour) -> None:
    with peer(behave) as there:
        tracemalloc.start()
        try:
            answer = post(there.url)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert answer.status_code == 200
    assert len(answer.response) <= 1024
    assert peak < 1_000_000


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (says(), "closed before an answer"),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "no HTTP"),
        (says(b"HTTP/1.1 abc\r\n\r\n"), "no HTTP"),
        (says(b"\x00" * 100 + b"\r\n"), "no HTTP"),
        (says(b"y" * 70_000), "no HTTP"),
    ],
)
def test_what_is_no_answer_is_named_in_plain_words(behave: Behaviour, words: str) -> None:
    with pytest.raises(DeliveryFailed, match=words) as failed:
        post_to(behave)
    assert "\x00" not in failed.value.detail


def test_a_refused_connection_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(DeliveryFailed, match="refused"):
        post(f"http://127.0.0.1:{port}/")


def test_a_name_without_address_is_named() -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(DeliveryFailed, match="could not be resolved"):
        post("https://gone.example/", resolve=resolve)


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A self-signed certificate for shop.example, with its key, in one file."""
    return self_signed("shop.example", tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_peer(certificate: Path) -> Iterator[Peer]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    with peer(answers(200, body=b"thanks", keeps_open=True), tls=tls) as there:
        yield there


def to_loopback(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


def test_tls_is_agreed_on_for_the_name_while_the_address_is_dialled(tls_peer: Peer, certificate: Path) -> None:
    trust = ssl.create_default_context(cafile=str(certificate))
    answer = post(f"https://shop.example:{tls_peer.port}/", resolve=to_loopback, trust=trust)
    assert (answer.status_code, answer.response) == (200, "thanks")
    assert tls_peer.server_names == ["shop.example"]


def test_a_certificate_for_another_name_is_refused_and_nothing_is_sent(tls_peer: Peer, certificate: Path) -> None:
    trust = ssl.create_default_context(cafile=str(certificate))
    with pytest.raises(DeliveryFailed, match="certificate"):
        post(f"https://other.example:{tls_peer.port}/", resolve=to_loopback, trust=trust)
    assert tls_peer.requests == []


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_peer: Peer) -> None:
    with pytest.raises(DeliveryFailed, match="certificate"):
        post(f"https://shop.example:{tls_peer.port}/", resolve=to_loopback)
    assert tls_peer.requests == []


def test_a_server_without_tls_is_not_spoken_to_in_clear() -> None:
    with peer(answers(200)) as there, pytest.raises(DeliveryFailed):
        post(f"https://127.0.0.1:{there.port}/", timeout_s=SHORT_S)
