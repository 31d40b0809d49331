"""A client of the API in this process, and the Context that the API runs on."""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from secrets import token_bytes
from typing import Any

from flask.testing import FlaskClient

from ctrip.blockchain.addresses import DepositWallet
from ctrip.box import SecretsBox
from ctrip.context import Context
from ctrip.database.engine import Sessions
from ctrip.domain.addresses import NATIVE
from ctrip.domain.chains import Token
from ctrip.domain.ids import make_id
from ctrip.domain.rates import RatePolicy
from ctrip.outbound.http import Poster
from ctrip.settings import Role, Settings
from ctrip.settings.rates import RateSettings
from tests.conftest import SECRETS_KEY, XPUB
from tests.contract import contract_of
from tests.factories import OTHER_CHAIN_ID, make_chain

READ_BLOCK = 20
"""How far the chain `anvil` is read when a test begins; `fresh` was never read, `resting` is disabled."""


@dataclass(frozen=True)
class Api:
    """A client with a key. Answers are werkzeug's TestResponse; their `json` is Any here, as a client reads it."""

    client: FlaskClient
    key: str | None
    merchant_id: str = ""

    def get(self, path: str, **kwargs: Any) -> Any:
        return self.send("GET", path, **kwargs)

    def post(self, path: str, body: Any = None, **kwargs: Any) -> Any:
        return self.send("POST", path, json=body, **kwargs)

    def send(self, method: str, path: str, *, headers: dict[str, str] | None = None, **kwargs: Any) -> Any:
        auth = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        if kwargs.get("json", ...) is None:
            kwargs.pop("json")
        answer = self.client.open(path, method=method, headers=auth | (headers or {}), **kwargs)
        # Whatever a test is about: no answer is one that the OpenAPI document does not promise.
        contract_of(self.client.application).judge(self.client.application, answer)
        return answer

    def ask(self, amount: str = "12.50", **fields: Any) -> dict[str, Any]:
        """Create a payment of USDC on anvil, unless said otherwise."""
        answer = self.post("/api/v1/payments", {"chain": "anvil", "token": "USDC", "amount": amount} | fields)
        assert answer.status_code == 201, answer.text
        return answer.json


def problem(answer: Any) -> tuple[int, str, str | None]:
    """Status, code and param of a refusal, which must be a problem from head to foot."""
    assert answer.content_type == "application/problem+json", answer.text
    body = answer.json
    assert set(body) == {"type", "title", "status", "detail", "instance", "code", "param", "request_id"}
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert "Traceback" not in answer.text
    return answer.status_code, body["code"], body["param"]


def make_context(sessions: Sessions, redis_url: str = "redis://127.0.0.1:1/0", **changes: Any) -> Context:
    """What bootstrap gives the API, with three chains, and without reading an environment."""
    clock = count(1)
    odd = Token("ODD", b"\x72" * 20, 6, fee_on_transfer=True)
    off = Token("OFF", b"\x73" * 20, 6, enabled=False)
    anvil = make_chain()
    chains = (
        dataclasses.replace(anvil, tokens=(*anvil.tokens, odd, off)),
        make_chain(name="fresh", chain_id=OTHER_CHAIN_ID, tokens=(Token("ETH", NATIVE, 18),)),
        make_chain(name="resting", chain_id=OTHER_CHAIN_ID + 1, enabled=False),
    )
    settings = Settings(
        role=Role.API,
        env="test",
        log_level="INFO",
        database_url="",
        redis_url=redis_url,
        chains=chains,
        wallet_xpub=XPUB,
        secrets_keys=(SECRETS_KEY,),
        rates=RateSettings(
            sources=("static",),
            currencies=("EUR", "JPY"),
            policy=RatePolicy(("static",), least=1, oldest=timedelta(minutes=5), spread=Decimal("0.05")),
        ),
    )
    ctx = Context(
        settings=settings,
        sessions=sessions,
        now=lambda: datetime.now(UTC),
        new_id=lambda prefix: make_id(prefix, now_ms=next(clock), random=token_bytes(10)),
        clients={},
        wallet=DepositWallet.from_xpub(XPUB),
        box=SecretsBox((SECRETS_KEY,)),
        poster=Poster(),
    )
    return dataclasses.replace(ctx, **changes)
