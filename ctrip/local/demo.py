"""One payment from POST to `settled`, told line by line: `python -m ctrip.local.demo DATA_DIR/stack.json`."""

import argparse
import json
import queue
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from ctrip.domain.addresses import parse_address
from ctrip.errors import CtripError
from ctrip.local.node import DevNode
from ctrip.local.sink import Received, Sink, listening

AMOUNT = "0.05"
_WEI = 10**18
_WITHIN_S = 120.0
_GREEN, _DIM, _BOLD = 32, 2, 1


class DemoFailed(CtripError):
    """The payment did not go its way."""

    code = "demo_failed"


def walk(stack: Mapping[str, Any], story: "Story") -> None:
    """Create a payment, pay it from the faucet, and follow its webhooks to `settled`. Raises DemoFailed."""
    node = DevNode(stack["chain_rpc"])
    treasury = parse_address(stack["treasury"])
    before = node.balance(treasury)
    with listening(stack["webhook_secret"]) as sink:
        payment = _create(stack, webhook_url=sink.url)
        story.tell("POST /api/v1/payments", f"{payment['id']} asks {AMOUNT} {payment['token'] or 'ETH'}")
        story.tell("", f"at its own address {payment['address']}")
        _follow(sink, story, {"payment.created"})
        faucet, address = parse_address(stack["faucet"]), parse_address(payment["address"])
        tx_hash = node.send(sender=faucet, to=address, value=int(payment["amount_atomic"]))
        story.tell("the payer pays", f"transaction 0x{tx_hash.hex()}")
        _follow(sink, story, {"payment.detected", "payment.confirmed", "payment.settled"})
    received = node.balance(treasury) - before
    gas = int(payment["amount_atomic"]) - received
    story.tell("treasury", f"{stack['treasury']} got {_coins(received)} ETH ({AMOUNT} less {_coins(gas)} for gas)")


class Story:
    """Lines with the seconds since the beginning."""

    def __init__(self, *, colours: bool) -> None:
        self._begun = time.monotonic()
        self._colours = colours

    def tell(self, what: str, text: str, *, good: bool = False) -> None:
        """Write one line."""
        clock = "" if not what else f"{self.seconds():5.1f} s"
        marked = self.paint(f"{what:<26}", _GREEN if good else _BOLD)
        sys.stdout.write(f"  {self.paint(f'{clock:>8}', _DIM)}  {marked} {text}\n")
        sys.stdout.flush()

    def paint(self, text: str, colour: int) -> str:
        """Colour a text where there are colours."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text

    def seconds(self) -> float:
        """Return the time since the beginning."""
        return time.monotonic() - self._begun


def _create(stack: Mapping[str, Any], *, webhook_url: str) -> dict[str, Any]:
    """Ask for a payment; again while the chain was not read for the first time."""
    asked = {"chain": stack["chain"], "amount": AMOUNT, "order_id": "demo-1", "webhook_url": webhook_url}
    deadline = time.monotonic() + 30
    while True:
        answer = requests.post(
            stack["api"] + "/api/v1/payments",
            json=asked,
            headers={"Authorization": f"Bearer {stack['api_key']}"},
            timeout=10,
        )
        if answer.status_code == 201:
            payment: dict[str, Any] = answer.json()
            return payment
        if answer.status_code != 503 or time.monotonic() > deadline:
            raise DemoFailed(f"POST /api/v1/payments answered {answer.status_code}: {answer.text[:500]}")
        time.sleep(0.1)


def _follow(sink: Sink, story: Story, awaited: set[str]) -> None:
    """Tell of each webhook until one of each awaited type has come, in whatever order."""
    deadline = time.monotonic() + _WITHIN_S
    while awaited:
        try:
            webhook = sink.arrivals.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            missing = ", ".join(sorted(awaited))
            raise DemoFailed(f"within {_WITHIN_S:.0f} s there was no webhook {missing}") from None
        awaited = awaited - {_told(webhook, story)}


def _told(webhook: Received, story: Story) -> str:
    kind = str(webhook.body["type"])
    if not webhook.verified:
        raise DemoFailed(f"the webhook {kind} carries a wrong signature")
    payment = webhook.body["data"]["payment"]
    facts = f"status {payment['status']}, received {payment['received']}, confirmed {payment['confirmed']}"
    story.tell(f"webhook {kind}", f"{facts}, version {payment['version']}", good=True)
    return kind


def _coins(amount: int) -> str:
    whole, part = divmod(abs(amount), _WEI)
    return f"{whole}.{part:018d}".rstrip("0").rstrip(".")


def main() -> int:
    """Tell the story on stdout; return the exit code."""
    parser = argparse.ArgumentParser(description="Walk one payment through a running stack.")
    parser.add_argument("stack", type=Path, help="the stack.json of a running stack")
    parser.add_argument("--colours", action="store_true", help="colour the lines though stdout is no terminal")
    arguments = parser.parse_args()
    story = Story(colours=arguments.colours or sys.stdout.isatty())
    try:
        walk(json.loads(arguments.stack.read_text()), story)
    except (CtripError, requests.RequestException) as error:
        sys.stderr.write(f"the demo failed: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
