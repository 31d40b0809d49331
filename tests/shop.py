"""A merchant's program and a payer, over HTTP and JSON-RPC alone: what any client could do with stack.json."""

from typing import Any

import requests
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from tests.waiting import wait_until


class Shop:
    """Creates payments through the API and pays them from the dev chain's faucet."""

    def __init__(self, stack: dict[str, Any]) -> None:
        self.stack = stack
        self.usdc = next(token["address"] for token in stack["tokens"] if token["symbol"] == "USDC")
        self._http = requests.Session()
        self._http.headers["Authorization"] = f"Bearer {stack['api_key']}"

    def ask(self, amount: str, *, token: str | None = None, **fields: Any) -> dict[str, Any]:
        """Create a payment."""
        body = {"chain": self.stack["chain"], "token": token, "amount": amount, **fields}
        headers = {"Idempotency-Key": fields["order_id"]} if "order_id" in fields else {}
        answer = self._http.post(f"{self.stack['api']}/api/v1/payments", json=body, headers=headers, timeout=20)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def ask_price(self, price: str, currency: str, tokens: list[str | None], **fields: Any) -> dict[str, Any]:
        """Create a payment of a price, which each of these tokens, or the coin for None, may pay."""
        assets = [{"chain": self.stack["chain"], "token": token} for token in tokens]
        return self.post("/payments", {"price": {"amount": price, "currency": currency}, "assets": assets, **fields})

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send anything under /api/v1."""
        answer = self._http.post(f"{self.stack['api']}/api/v1{path}", json=body, timeout=20)
        assert answer.ok, answer.text
        return answer.json()

    def get(self, path: str) -> dict[str, Any]:
        """Read anything under /api/v1."""
        answer = self._http.get(f"{self.stack['api']}/api/v1{path}", timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def payment(self, payment_id: str) -> dict[str, Any]:
        """Read a payment."""
        return self.get(f"/payments/{payment_id}")

    def wait_for(self, payment: dict[str, Any], status: str, *, within_s: float) -> None:
        """Wait until a payment has this status."""
        wait_until(lambda: self.payment(payment["id"])["status"] == status, within_s=within_s, what=f"it is {status}")

    def pay(self, payment: dict[str, Any], amount_atomic: int | None = None) -> str:
        """Pay from the faucet; returns the transaction's hash."""
        amount = int(payment["amount_atomic"]) if amount_atomic is None else amount_atomic
        if payment["token_address"] is None:
            return self.send({"to": payment["address"], "value": hex(amount)})
        call = keccak(text="transfer(address,uint256)")[:4] + encode(
            ["address", "uint256"], [payment["address"], amount]
        )
        return self.send({"to": payment["token_address"], "data": "0x" + call.hex(), "gas": hex(200_000)})

    def send(self, transaction: dict[str, str]) -> str:
        """Send a transaction of the faucet, an account that the dev node signs for."""
        return self.rpc("eth_sendTransaction", {"from": self.stack["faucet"], **transaction})

    def balance(self, address: str, token: str | None = None) -> int:
        """What an address holds now, in base units."""
        if token is None:
            return int(self.rpc("eth_getBalance", address, "latest"), 16)
        call = keccak(text="balanceOf(address)")[:4] + encode(["address"], [address])
        return int(self.rpc("eth_call", {"to": token, "data": "0x" + call.hex()}, "latest"), 16)

    def rpc(self, method: str, *params: Any) -> Any:
        """Ask the dev node."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer = requests.post(self.stack["chain_rpc"], json=request, timeout=20).json()
        assert "error" not in answer, answer
        return answer["result"]
