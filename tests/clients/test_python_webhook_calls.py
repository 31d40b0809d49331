"""The Python client keeps webhook endpoints, and looks after what went there."""

import pytest
from ctrip_client import ApiError, Client, CtripError, NoAnswer

from ctrip.context import Context
from ctrip.database import webhook_schedules
from tests.clients.line import Fault, Line
from tests.clients.test_python_client import ask

pytestmark = pytest.mark.infra
URL, OTHER_URL = "https://shop.example/hooks", "https://other.example/hooks"


def test_an_endpoint_is_made_changed_given_a_new_secret_and_deleted(client: Client) -> None:
    made = client.create_webhook_endpoint(url=URL, events=["payment.*"])
    assert made.secret is not None and made.secret.startswith("whsec_")
    assert (made.url, made.events, made.status, made.disabled_reason) == (URL, ("payment.*",), "enabled", None)
    found = client.webhook_endpoint(made.id)
    assert (found.id, found.secret, found.created_at) == (made.id, None, made.created_at)
    changed = client.update_webhook_endpoint(made.id, url=OTHER_URL, enabled=False)
    assert (changed.url, changed.events, changed.status) == (OTHER_URL, ("payment.*",), "disabled")
    assert client.update_webhook_endpoint(made.id, events=["*"], enabled=True).events == ("*",)
    rotated = client.rotate_webhook_secret(made.id)
    assert rotated.secret is not None and rotated.secret != made.secret
    assert [endpoint.id for endpoint in client.webhook_endpoints()] == [made.id]
    assert client.delete_webhook_endpoint(made.id).status == "disabled"
    assert list(client.webhook_endpoints()) == []
    with pytest.raises(ApiError, match="404 not_found"):
        client.webhook_endpoint(made.id)


def test_deliveries_are_listed_looked_at_and_sent_once_more(client: Client, api_ctx: Context) -> None:
    endpoint = client.create_webhook_endpoint(url=URL)
    first = client.test_webhook_endpoint(endpoint.id)
    assert (first.endpoint_id, first.url, first.status, first.attempts) == (endpoint.id, URL, "pending", 0)
    payment_id = ask(client)
    (of_payment,) = client.deliveries(payment_id)
    assert of_payment.event_id is not None
    assert client.event(of_payment.event_id).type == "payment.created"
    assert [each.id for each in client.deliveries()] == [of_payment.id, first.id]
    assert [each.id for each in client.deliveries(endpoint_id=endpoint.id, status="dead")] == []
    with api_ctx.sessions.begin() as session:
        webhook_schedules.end_pending(session, endpoint.id, limit=9)
    assert {each.id for each in client.deliveries(status="dead")} == {of_payment.id, first.id}
    again = client.redeliver(first.id)
    assert (again.id, again.status) == (first.id, "pending")
    assert client.delivery(first.id) == again
    assert again.next_attempt_at is not None and again.history == ()


def test_what_would_be_done_twice_is_not_sent_again(client: Client, line: Line) -> None:
    endpoint = client.create_webhook_endpoint(url=URL)
    for act in (client.rotate_webhook_secret, client.test_webhook_endpoint, client.delete_webhook_endpoint):
        line.faults, line.asked = [Fault.UNANSWERED], []
        with pytest.raises(NoAnswer):
            act(endpoint.id)
        assert len(line.asked) == 1
    line.faults, line.asked = [Fault.UNANSWERED], []
    with pytest.raises(NoAnswer):
        client.create_webhook_endpoint(url=URL)
    (made,) = client.webhook_endpoints()
    line.faults, line.asked = [Fault.UNANSWERED, Fault.BUSY], []
    assert client.update_webhook_endpoint(made.id, url=OTHER_URL).url == OTHER_URL
    assert len(line.asked) == 3, "a change is the same however often it is made"


@pytest.mark.parametrize("object_id", ["../payments", "", "a/b", "whe_1?x"])
def test_what_is_no_id_is_asked_for_nowhere(client: Client, line: Line, object_id: str) -> None:
    for act in (client.webhook_endpoint, client.delivery, client.event, client.redeliver, client.cancel):
        with pytest.raises(CtripError, match="is no id of"):
            act(object_id)
    assert line.asked == []


def test_the_chains_tell_what_can_be_asked_for(client: Client) -> None:
    anvil, fresh, _ = client.chains()
    assert (anvil.name, anvil.chain_id, anvil.status, anvil.native.symbol) == ("anvil", 31337, "ready", "ETH")
    assert {token.symbol: token.payable for token in anvil.tokens}["USDC"] is True
    assert (fresh.status, fresh.head_block) == ("not_ready", None)
