"""The same work on FastAPI and asyncpg: key, idempotency, validation, derivation, event, in the same one statement.

What is cTrip's own (deriving, rendering, the SQL) is the same code, so what differs is the stack around it.
"""

import json
import os
import time
from collections import deque
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import asyncpg
from fastapi import FastAPI, Header, HTTPException, Request, Response

from bench.api_sql import numbered
from ctrip.bootstrap import bootstrap
from ctrip.database import creating
from ctrip.database.creating import Kept
from ctrip.domain.addresses import NATIVE
from ctrip.domain.finality import Finality
from ctrip.domain.idempotency import Answer, Once, hash_body
from ctrip.domain.ids import Prefix
from ctrip.domain.merchants import is_same, read_key
from ctrip.domain.money import parse_amount
from ctrip.domain.payments import Payment, payment_object
from ctrip.domain.prices import Asked
from ctrip.services.creating import AmountRequest
from ctrip.settings import Role
from ctrip.web.schemas.payments import CreatePayment

_KEY = "SELECT id, merchant_id, secret_hash FROM api_keys WHERE public_id = $1 AND revoked_at IS NULL"
_TAKE = "SELECT nextval('deposit_index') FROM generate_series(1, 20)"
_SQL, _NAMES = numbered()
ctx = bootstrap(Role.API, os.environ)
recent: dict[str, tuple[float, Any]] = {}
indexes = deque[int]()


@asynccontextmanager
async def lifespan(app: FastAPI) -> Any:
    app.state.pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=16, max_size=16)
    yield
    await app.state.pool.close()


app = FastAPI(lifespan=lifespan)


@app.post("/api/v1/payments", status_code=201)
async def create_payment(
    request: Request, body: CreatePayment, authorization: str = Header(), idempotency_key: str = Header()
) -> Response:
    merchant_id = await _merchant_id(authorization.removeprefix("Bearer "))
    asked, now = body.request(), ctx.now()
    if not isinstance(asked.of, AmountRequest):
        raise HTTPException(422)
    chain = ctx.settings.chain_named(asked.of.asset.chain)
    token = None if chain is None else chain.token(asked.of.asset.token)
    if chain is None or token is None or ctx.wallet is None:
        raise HTTPException(422)
    amount = parse_amount(asked.of.amount, token.decimals)
    if not indexes:
        indexes.extend(row[0] for row in await app.state.pool.fetch(_TAKE))
    index = indexes.popleft()
    payment = Payment(
        id=ctx.new_id(Prefix.PAYMENT),
        merchant_id=merchant_id,
        asked=Asked(
            chain_id=chain.chain_id,
            chain=chain.name,
            token=NATIVE,
            symbol=token.symbol,
            decimals=token.decimals,
            amount=amount,
            required=chain.confirmations,
            finality=Finality.CONFIRMATIONS,
        ),
        tolerance_bps=0,
        address=ctx.wallet.address(index),
        order_id=asked.order_id,
        customer_email=asked.customer_email,
        metadata=dict(asked.metadata),
        webhook_url=asked.webhook_url,
        created_at=now,
        expires_at=now + timedelta(minutes=30),
    )
    answer = Answer(201, json.dumps(payment_object(payment, read_block=0)))
    kept = Kept(Once("POST /api/v1/payments", idempotency_key, hash_body(await request.json())), answer, now)
    values = creating.values_of(
        payment, wallet_fingerprint=ctx.wallet.fingerprint, index=index, new_id=ctx.new_id, kept=kept
    )
    values |= {"metadata": json.dumps(values["metadata"])}
    values |= {name: Decimal(values[name]) for name in ("amount", "received", "confirmed")}
    made = await app.state.pool.fetchrow(_SQL, *(values[name] for name in _NAMES))
    if made is None or made[0] is None:
        raise HTTPException(409)
    return Response(answer.body, status_code=201, media_type="application/json")


async def _merchant_id(key: str) -> str:
    public_id, presented = read_key(key) or ("", bytes(32))
    read_at, row = recent.get(public_id, (0.0, None))
    if row is None or time.monotonic() - read_at > 1.0:
        row = await app.state.pool.fetchrow(_KEY, public_id)
        recent[public_id] = time.monotonic(), row
    if row is None or not is_same(presented, row["secret_hash"]):
        raise HTTPException(401)
    return str(row["merchant_id"])
