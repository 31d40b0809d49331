import ipaddress
import socket
from collections.abc import Sequence

import pytest

from ctrip.errors import DeliveryFailed, DestinationRefused
from ctrip.outbound.destinations import MAX_URL_CHARACTERS, Network
from ctrip.outbound.dialling import system_resolve
from ctrip.outbound.http import Poster

PUBLIC = "93.184.215.14"
PUBLIC_6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"

CLOSED_ADDRESSES = {
    "0.0.0.0": "this host",
    "10.0.0.1": "private",
    "100.64.0.1": "carrier's NAT",
    "100.100.100.200": "Alibaba's metadata",
    "127.0.0.1": "loopback",
    "127.8.9.10": "loopback",
    "168.63.129.16": "Azure's host agent",
    "169.254.169.254": "metadata of most clouds",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.192": "Oracle's metadata",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4 relay",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarks",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "::127.0.0.1": "IPv4-compatible",
    "::ffff:127.0.0.1": "IPv4-mapped",
    "::ffff:a9fe:a9fe": "IPv4-mapped",
    "::ffff:0:7f00:1": "IPv4-translated",
    "64:ff9b::7f00:1": "NAT64",
    "64:ff9b:1::7f00:1": "local NAT64",
    "100::1": "discard",
    "2001:0:7f00:1::": "Teredo",
    "2001:db8::1": "documentation",
    "2002:7f00:1::1": "6to4",
    "3fff::1": "documentation",
    "4000::1": "not given out by IANA",
    "fc00::1": "unique local",
    "fd00:ec2::254": "Amazon's metadata",
    "fe80::1": "link-local",
    "fe80::1%lo": "link-local with a zone",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
}

CLOSED_URLS = [
    # other spellings of 127.0.0.1 and 169.254.169.254
    "https://127.1/",
    "https://127.0.1/",
    "https://2130706433/",
    "https://017700000001/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0x7F.1/",
    "https://0177.0.0.1/",
    "https://127.0.0.01/",
    "https://127.0.0.1./",
    "https://0/",
    "https://0x/",
    "https://2852039166/",
    "https://0xa9fea9fe/",
    "https://1.2.3.4.5/",
    "https://shop.example.1/",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://127\u30020\u30020\u30021/",
    "https://\u2460\u2461\u2466.0.0.1/",
    "https://[::ffff:7f00:0001]/",
    "https://[0:0:0:0:0:ffff:127.0.0.1]/",
    # hosts that are none, or that two readers would read in two ways
    "https://",
    "https:///hooks",
    "https:/hooks",
    "https://:443/",
    "https://./",
    "https://shop..example/",
    "https://-shop.example/",
    "https://shop.example./",
    "https://shop%2eexample/",
    "https://shop.example%00.evil.example/",
    "https://[::1/",
    "https://[fe80::1%25eth0]/",
    "https://[v1.example]/",
    "https://[127.0.0.1]/",
    "https://::1/",
    "https://shop\u2024example\u2048/",
    "https://shop\u2100.example/",
    f"https://{'a' * 64}.example/",
    f"https://{'a.' * 130}example/",
    # credentials and what tries to look like them
    "https://user:secret@shop.example/",
    "https://user@shop.example/",
    "https://@shop.example/",
    "https://shop.example@127.0.0.1/",
    "https://127.0.0.1\\@shop.example/",
    "https://shop.example\\.evil.example/",
    "https://shop.example/a\\b",
    "https://shop.example#@127.0.0.1/",
    "https://shop.example/#fragment",
    "https://shop.example/hooks#",
    # characters that split a request
    "https://shop.example/a b",
    " https://shop.example/",
    "https://shop.example/\r\nX-Evil: 1",
    "https://shop.example/\n",
    "https://shop.example/\t",
    "https://shop\t.example/",
    "https://shop.example/\x00",
    "https://shop.example/\x7f",
    "https://shop.example/\u2028",
    "https://shop.example/caf\u00e9",
    # schemes
    "ftp://shop.example/",
    "file:///etc/passwd",
    "gopher://shop.example/",
    "dict://shop.example:11211/",
    "data:text/plain,x",
    "javascript:alert(1)",
    "unix:///var/run/docker.sock",
    "ws://shop.example/",
    "httpss://shop.example/",
    "//shop.example/",
    "shop.example/hooks",
    "",
    # ports
    "https://shop.example:0/",
    "https://shop.example:22/",
    "https://shop.example:25/",
    "https://shop.example:1023/",
    "https://shop.example:65536/",
    "https://shop.example:-1/",
    "https://shop.example:+443/",
    "https://shop.example:https/",
    "https://shop.example:443:443/",
    "https://shop.example:\u0664\u0664\u0663/",
    # http where nothing is opened, and a URL that is too long
    "http://shop.example/",
    f"http://{PUBLIC}/",
    "https://shop.example/" + "x" * MAX_URL_CHARACTERS,
]


class Recorder:
    """A resolver and a connector that write down what is asked of them; nothing is dialled."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.resolved: list[tuple[str, int]] = []
        self.dialled: list[tuple[str, int]] = []

    def resolve(self, host: str, port: int) -> Sequence[str]:
        """Give the next answer; the last one stays."""
        self.resolved.append((host, port))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        """Refuse, as a closed port does."""
        self.dialled.append((address, port))
        raise ConnectionRefusedError("this is a recorder")

    def poster(self, *allow: str) -> Poster:
        networks: tuple[Network, ...] = tuple(ipaddress.ip_network(network) for network in allow)
        return Poster(allow=networks, timeout_s=5, resolve=self.resolve, connect=self.connect)


def try_to_post(poster: Poster, url: str) -> None:
    poster.post(url, body=b"{}", headers={})


def literal_url(address: str) -> str:
    return f"https://[{address}]/" if ":" in address else f"https://{address}/"


@pytest.mark.parametrize("url", CLOSED_URLS)
def test_a_url_that_is_not_plainly_public_is_refused_when_named_and_when_used(url: str) -> None:
    recorder = Recorder([PUBLIC])
    poster = recorder.poster()
    with pytest.raises(DestinationRefused):
        poster.check(url)
    with pytest.raises(DestinationRefused):
        try_to_post(poster, url)
    assert recorder.dialled == []


@pytest.mark.parametrize("address", CLOSED_ADDRESSES)
def test_a_closed_address_in_the_url_is_refused_when_named_and_when_used(address: str) -> None:
    recorder = Recorder([PUBLIC])
    with pytest.raises(DestinationRefused):
        recorder.poster().check(literal_url(address))
    with pytest.raises(DestinationRefused):
        try_to_post(recorder.poster(), literal_url(address))
    assert (recorder.resolved, recorder.dialled) == ([], [])


@pytest.mark.parametrize("address", CLOSED_ADDRESSES)
def test_a_name_that_leads_to_a_closed_address_is_refused_at_each_use(address: str) -> None:
    recorder = Recorder([address])
    poster = recorder.poster()
    poster.check("https://shop.example/")
    with pytest.raises(DestinationRefused) as refused:
        try_to_post(poster, "https://shop.example/")
    assert recorder.dialled == []
    assert address not in refused.value.detail, "our resolver's answer is none of the merchant's business"


@pytest.mark.parametrize(
    "answer",
    [
        [PUBLIC, "10.0.0.1"],
        ["10.0.0.1", PUBLIC],
        [PUBLIC, PUBLIC_6, "::1"],
        [PUBLIC, "::ffff:10.0.0.1"],
        [PUBLIC] * 10 + ["169.254.169.254"],
        [],
        ["no address"],
        [PUBLIC, ""],
    ],
)
def test_one_closed_or_unreadable_address_among_public_ones_refuses_them_all(answer: list[str]) -> None:
    recorder = Recorder(answer)
    with pytest.raises(DestinationRefused):
        try_to_post(recorder.poster(), "https://shop.example/")
    assert recorder.dialled == []


def test_a_name_that_changes_its_address_after_the_check_is_dialled_where_it_was_checked() -> None:
    recorder = Recorder([PUBLIC], ["127.0.0.1"])
    poster = recorder.poster()
    with pytest.raises(DeliveryFailed):
        try_to_post(poster, "https://rebind.example/")
    assert (recorder.resolved, recorder.dialled) == ([("rebind.example", 443)], [(PUBLIC, 443)])
    with pytest.raises(DestinationRefused):
        try_to_post(poster, "https://rebind.example/")
    assert recorder.dialled == [(PUBLIC, 443)]


@pytest.mark.parametrize("url", ["https://localhost/", "https://LOCALHOST/"])
def test_the_systems_own_names_are_refused_with_the_real_resolver(url: str) -> None:
    recorder = Recorder([])
    poster = Poster(resolve=system_resolve, connect=recorder.connect)
    with pytest.raises(DestinationRefused):
        try_to_post(poster, url)
    assert recorder.dialled == []


@pytest.mark.parametrize(
    ("url", "answer", "dialled"),
    [
        ("https://shop.example/", [PUBLIC], [(PUBLIC, 443)]),
        ("https://shop.example:8443/hooks?x=y", [PUBLIC], [(PUBLIC, 8443)]),
        ("https://SHOP.example:/", [PUBLIC_6, PUBLIC], [(PUBLIC_6, 443), (PUBLIC, 443)]),
        ("https://shop.example:80/", [f"::ffff:{PUBLIC}"], [(PUBLIC, 80)]),
        ("HTTPS://shop_1.example/", [PUBLIC], [(PUBLIC, 443)]),
        (f"https://{PUBLIC}/", [], [(PUBLIC, 443)]),
        (f"https://[{PUBLIC_6}]:8443/", [], [(PUBLIC_6, 8443)]),
        ("https://shop.example/", [f"93.184.215.{n}" for n in range(50)], [(f"93.184.215.{n}", 443) for n in range(4)]),
    ],
)
def test_a_public_destination_is_dialled(url: str, answer: list[str], dialled: list[tuple[str, int]]) -> None:
    recorder = Recorder(answer)
    recorder.poster().check(url)
    with pytest.raises(DeliveryFailed, match="refused"):
        try_to_post(recorder.poster(), url)
    assert recorder.dialled == dialled


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://b\u00fccher.example/", "xn--bcher-kva.example"),
        ("https://B\u00dcCHER.example/", "xn--bcher-kva.example"),
        ("https://fa\u00df.example/", "xn--fa-hia.example"),
        ("https://b\u00fccher\u3002example/", "xn--bcher-kva.example"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example"),
    ],
)
def test_an_international_name_is_resolved_in_its_ascii_form(url: str, host: str) -> None:
    recorder = Recorder([PUBLIC])
    with pytest.raises(DeliveryFailed):
        try_to_post(recorder.poster(), url)
    assert recorder.resolved == [(host, 443)]


@pytest.mark.parametrize(
    ("allow", "url", "answer", "is_dialled"),
    [
        (["127.0.0.0/8"], "http://127.0.0.1:8080/", [], True),
        (["127.0.0.0/8"], "https://127.0.0.1/", [], True),
        (["127.0.0.0/8"], "http://localhost/", ["127.0.0.1"], True),
        (["127.0.0.0/8"], "http://localhost/", ["::1", "127.0.0.1"], False),
        (["127.0.0.0/8", "::1/128"], "http://localhost/", ["::1", "127.0.0.1"], True),
        (["127.0.0.0/8"], "http://[::ffff:127.0.0.1]/", [], True),
        (["127.0.0.0/8"], "http://[64:ff9b::7f00:1]/", [], False),
        (["10.0.0.0/8"], "http://127.0.0.1/", [], False),
        (["10.0.0.0/8"], "https://lan.example/", ["10.1.2.3"], True),
        (["10.0.0.0/8"], "https://lan.example/", ["10.1.2.3", PUBLIC], True),
        (["10.0.0.0/8"], "http://lan.example/", ["10.1.2.3", PUBLIC], False),
        (["10.0.0.0/8"], "http://shop.example/", [PUBLIC], False),
        (["10.0.0.0/8"], "https://lan.example/", ["10.1.2.3", "192.168.0.1"], False),
    ],
)
def test_what_the_operator_opens_is_open_also_for_http_and_nothing_else(allow, url, answer, is_dialled) -> None:
    recorder = Recorder(answer)
    with pytest.raises(DeliveryFailed if is_dialled else DestinationRefused):
        try_to_post(recorder.poster(*allow), url)
    assert bool(recorder.dialled) is is_dialled


def test_http_to_a_name_is_judged_at_its_addresses_where_something_is_opened() -> None:
    Recorder([]).poster("10.0.0.0/8").check("http://lan.example/")
    with pytest.raises(DestinationRefused):
        Recorder([]).poster("10.0.0.0/8").check(f"http://{PUBLIC}/")
