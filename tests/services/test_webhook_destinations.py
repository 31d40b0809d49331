"""Hostile destinations at each place where a URL comes in or is used: a resolver and a connector that only record."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import sqlalchemy as sa

from ctrip.box import SecretsBox
from ctrip.context import Context
from ctrip.database import webhook_endpoints as endpoint_rows
from ctrip.database import webhooks
from ctrip.database.models import webhook_deliveries
from ctrip.database.models import webhook_endpoints as endpoints
from ctrip.domain.ids import Prefix
from ctrip.errors import DestinationRefused
from ctrip.outbound.http import Poster
from ctrip.services import webhook_deliveries as deliveries
from ctrip.services import webhook_endpoints
from tests.conftest import SECRETS_KEY, WEBHOOK_SECRET
from tests.factories import MERCHANT_ID
from tests.outbound.peers import answers, peer
from tests.outbound.test_destinations import CLOSED_ADDRESSES, CLOSED_URLS, PUBLIC, Recorder, literal_url
from tests.services.office import LOOPBACK, Office
from tests.sink import Sink

pytestmark = pytest.mark.infra
GOOD = "https://shop.example/hooks"
HOSTILE = [*CLOSED_URLS, *map(literal_url, CLOSED_ADDRESSES)]
STORABLE = [url for url in HOSTILE if "\x00" not in url]
"""What Postgres can hold: a URL that got into a row, however it did, is checked again before it is dialled."""


@pytest.fixture
def recorder(office: Office) -> Recorder:
    """What the office's poster resolves and dials with."""
    recorder = Recorder([PUBLIC])
    office.ctx = replace(office.ctx, poster=recorder.poster())
    return recorder


def create(ctx: Context, _: str, url: str) -> object:
    return webhook_endpoints.create(ctx, MERCHANT_ID, url=url, wanted=["*"])


def change(ctx: Context, endpoint_id: str, url: str) -> object:
    return webhook_endpoints.change(ctx, MERCHANT_ID, endpoint_id, url=url)


@pytest.mark.parametrize("register", [create, change])
def test_no_hostile_url_is_registered(
    office: Office, recorder: Recorder, register: Callable[[Context, str, str], object]
) -> None:
    endpoint_id = office.hook(GOOD)["id"]
    for url in HOSTILE:
        with pytest.raises(DestinationRefused) as refused:
            register(office.ctx, endpoint_id, url)
        assert refused.value.param == "url", url
    with office.ctx.sessions.begin() as session:
        assert session.scalars(sa.select(endpoints.c.url)).all() == [GOOD]
    assert (recorder.resolved, recorder.dialled) == ([], [])


def sent(office: Office, urls: Sequence[str]) -> None:
    """Payments' own URLs."""
    payment = office.pay()
    for version, url in enumerate(urls, start=2):
        office.tell(replace(payment, webhook_url=url), version)


def custom(office: Office, urls: Sequence[str]) -> None:
    """Custom webhooks."""
    with office.ctx.sessions.begin() as session:
        for url in urls:
            webhooks.owe_custom(session, url=url, payload="{}", merchant_id=MERCHANT_ID, new_id=office.ctx.new_id)


def retried(office: Office, urls: Sequence[str]) -> None:
    """What was tried before."""
    custom(office, urls)
    office.change_all(attempts=1)


def redelivered(office: Office, urls: Sequence[str]) -> None:
    """What was dead, and is asked for again."""
    custom(office, urls)
    office.change_all(status="dead", next_attempt_at=None, dead_reason="schedule")
    for delivery_id in office.owed_to(None):
        deliveries.redeliver(office.ctx, MERCHANT_ID, delivery_id)


def probed(office: Office, urls: Sequence[str]) -> None:
    """Test events to endpoints whose URL was honest once."""
    for url in urls:
        with office.ctx.sessions.begin() as session:
            endpoint = endpoint_rows.add(
                session,
                office.ctx.new_id(Prefix.ENDPOINT),
                merchant_id=MERCHANT_ID,
                url=url,
                events=("*",),
                secret=SecretsBox([SECRETS_KEY]).encrypt(WEBHOOK_SECRET.encode()),
            )
        webhook_endpoints.test(office.ctx, MERCHANT_ID, endpoint.id)


@pytest.mark.parametrize("owe", [sent, custom, retried, redelivered, probed])
def test_no_hostile_destination_is_dialled_however_it_got_into_a_row(
    office: Office, owe: Callable[[Office, Sequence[str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    leads_to = {f"closed-{n}.example": address for n, address in enumerate(CLOSED_ADDRESSES)}
    recorder = Recorder([])

    def resolve(host: str, _port: int) -> Sequence[str]:
        return [leads_to.get(host, PUBLIC)]

    poster = Poster(timeout_s=5, resolve=resolve, connect=recorder.connect)
    office.ctx = replace(office.ctx, poster=poster)
    # Of one origin, so that one run attempts them all.
    for module in ("webhooks", "webhook_endpoints"):
        monkeypatch.setattr(f"ctrip.database.{module}.origin", lambda _: "https://hostile.example:443")
    urls = [*STORABLE, *(f"https://{host}/hooks" for host in leads_to)]
    # All of them once; the other ways lead to the same POST, and a third of them each will do.
    urls = urls if owe is sent else urls[::3]
    owe(office, urls)
    office.deliver_all()
    with office.ctx.sessions.begin() as session:
        of = webhook_deliveries.c
        least = 2 if owe is retried else 1
        rows = session.execute(sa.select(of.url, of.status, of.attempts >= least, of.last_status_code)).all()
    assert sorted(rows) == sorted((url, "pending", True, None) for url in urls)
    assert recorder.dialled == []
    assert len(urls) > 50


def test_a_name_that_is_rebound_between_attempts_is_checked_at_each(office: Office) -> None:
    recorder = Recorder([PUBLIC], ["127.0.0.1"], ["169.254.169.254"], [PUBLIC])
    office.ctx = replace(office.ctx, poster=recorder.poster())
    delivery_id, _ = office.owe(GOOD)
    for _ in range(4):
        office.deliver_when_due(delivery_id)
    assert recorder.dialled == [(PUBLIC, 443)] * 2
    assert len(recorder.resolved) == 4


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_into_the_own_network_is_a_failure_and_is_never_followed(
    office: Office, sink: Sink, status: int
) -> None:
    dialled: list[tuple[str, int]] = []

    def connect(address: str, port: int, timeout_s: float) -> socket.socket:
        dialled.append((address, port))
        return socket.create_connection((address, port), timeout_s)

    def resolve(_host: str, _port: int) -> Sequence[str]:
        raise AssertionError("there is no name to resolve")

    poster = Poster(allow=LOOPBACK, timeout_s=10, connect=connect, resolve=resolve)
    office.ctx = replace(office.ctx, poster=poster)
    with peer(answers(status, f"Location: {sink.url}")) as there:
        delivery_id, _ = office.owe(there.url)
        office.deliver(delivery_id)
        assert dialled == [("127.0.0.1", there.port)]
    assert (office.row(delivery_id).status, office.row(delivery_id).last_status_code) == ("pending", status)
    assert sink.received == []
