"""The operator's walk: every job over HTTP against the running stack, and the loops and queues beside them."""

from contextlib import closing
from typing import Any

import psycopg2
import pytest
import requests

from tests.shop import Shop
from tests.sink import Sink
from tests.stack import RunningStack
from tests.waiting import wait_until

pytestmark = pytest.mark.infra


class Operator:
    """What an operator's program does with the key of stack.json."""

    def __init__(self, stack: dict[str, Any]) -> None:
        self.chain = stack["chain"]
        self._url = f"{stack['api']}/admin"
        self._http = requests.Session()
        self._http.headers["Authorization"] = f"Bearer {stack['admin_key']}"

    def get(self, path: str) -> dict[str, Any]:
        answer = self._http.get(f"{self._url}/{path}", timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: dict[str, Any] | None = None, *, status: int = 202) -> dict[str, Any]:
        answer = self._http.post(f"{self._url}/{path}", json=body, timeout=20)
        assert answer.status_code == status, answer.text
        return answer.json()

    def done(self, job: dict[str, Any], *, within_s: float = 60) -> dict[str, Any]:
        """Wait until a job is done; return its result."""

        def is_over() -> dict[str, Any] | None:
            found = self.get(job["status_url"].removeprefix("/admin/"))
            return found if found["ended_at"] else None

        over = wait_until(is_over, within_s=within_s, every_s=0.2, what=f"{job['kind']} {job['id']} is over")
        assert over is not None
        assert over["status"] == "done", over
        result: dict[str, Any] = over["result"]
        return result

    def loop(self, name: str) -> dict[str, Any]:
        return next(loop for loop in self.get("loops")["data"] if loop["name"] == name)


def test_each_job_of_an_operator_is_done_by_the_running_stack(stack: RunningStack) -> None:
    facts = stack.facts()
    operator, shop = Operator(facts), Shop(facts)
    sweeper = f"sweeper:{facts['chain_id']}"
    with Sink() as sink:
        operator.post(f"loops/{sweeper}/pause", status=200)
        payment = shop.ask("0.5", webhook_url=sink.url)
        shop.pay(payment)
        shop.wait_for(payment, "confirmed", within_s=60)
        assert operator.loop(sweeper)["enabled"] is False
        address = {"chain": operator.chain, "address": payment["address"]}
        operator.post("sweep-address", address, status=409)

        scan = operator.done(operator.post("scan-now", {"chain": operator.chain}))
        assert scan["to_block"] >= scan["head_block"]
        evidence = operator.done(operator.post("process-payment", {"payment_id": payment["id"]}))
        assert (evidence["transfers_stored"], evidence["transfers_orphaned"]) == (0, 0)
        assert evidence["evidence"]["payment"]["status"] == "confirmed", "the sweeper rests"

        operator.post(f"loops/{sweeper}/resume", status=200)
        swept = operator.done(operator.post("sweep-address", address), within_s=60)
        assert (swept["state"], shop.balance(payment["address"])) == ("done", 0)
        assert set(operator.done(operator.post("sweep-now", {"chain": operator.chain}))) >= {"planned", "sent", "held"}

        _send_by_hand(operator, shop, payment, sink)
    _look_around(stack, operator, sweeper)


def _send_by_hand(operator: Operator, shop: Shop, payment: dict[str, Any], sink: Sink) -> None:
    body = {"payment_id": payment["id"], "type": "payment.confirmed"}
    (told,) = operator.done(operator.post("send-webhook", body))["deliveries"]
    assert (told["status"], told["url"]) == ("delivered", sink.url)
    again = [each for each in sink.received if each.event.get("type") == "payment.confirmed"]
    assert len(again) == 2
    assert len({each.headers["webhook-id"] for each in again}) == 1
    again[-1].verify(shop.stack["webhook_secret"])
    # The stack's own merchant is the first that it made; other tests make theirs.
    *_, merchant_id = (key["merchant_id"] for key in operator.get("keys")["data"] if key["merchant_id"])
    for signer in (merchant_id, None):
        own = {"url": sink.url, "payload": {"signed_by": signer}, "merchant_id": signer}
        (told,) = operator.done(operator.post("custom-webhook", own))["deliveries"]
        assert told["status"] == "delivered"
    signed, unsigned = (each for each in sink.received if "signed_by" in each.event)
    signed.verify(shop.stack["webhook_secret"])
    assert "webhook-signature" not in unsigned.headers


def _look_around(stack: RunningStack, operator: Operator, loop: str) -> None:
    """What an operator sees beside the jobs: the loops that run when told to, the queues that they went through."""
    with closing(psycopg2.connect(stack["database_url"])) as connection, connection, connection.cursor() as cursor:
        cursor.execute("UPDATE loops SET next_run_at = now() + interval '1 h' WHERE name = %s", [loop])
    before = operator.loop(loop)["fence"]
    operator.post(f"loops/{loop}/run", status=200)
    wait_until(lambda: operator.loop(loop)["fence"] > before, within_s=3, what="the loop ran, which was not due")

    def queues() -> dict[str, dict[str, Any]]:
        return {queue["queue"]: queue for queue in operator.get("queues")["data"]}

    def have_counted() -> bool:
        return all(queues()[name]["completed_1h"] > 0 for name in ("listener", "sweeper", "webhook"))

    assert set(queues()) == {"listener", "sweeper", "webhook", "email"}
    wait_until(have_counted, within_s=15, what="the queues count what they did")
    assert all(queue["workers"] >= 1 for queue in queues().values())
    shown = stack.ctrip("queues")
    assert (shown.returncode, "seen" in shown.stderr) == (0, False), shown.stderr
    assert {job["status"] for job in operator.get("jobs")["data"]} == {"done"}
