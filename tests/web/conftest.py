"""The API in this process on a real Postgres: a merchant with every scope, another one, and an operator."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from flask import Flask

from ctrip.context import Context
from ctrip.database.engine import Sessions
from ctrip.domain.merchants import MERCHANT_SCOPES
from ctrip.services.merchants import create_key, create_merchant
from ctrip.web import create_app
from tests.api import READ_BLOCK, Api, make_context
from tests.factories import read_to


@pytest.fixture
def api_ctx(sessions: Sessions) -> Context:
    """The API's, but of one who may prepare any row."""
    with sessions.begin() as session:
        read_to(session, READ_BLOCK)
    return make_context(sessions)


@pytest.fixture
def serving(api_ctx: Context, api_engine: sa.Engine) -> Context:
    """What the API runs on: `api_ctx` as a member of ctrip_api."""
    return replace(api_ctx, sessions=Sessions(api_engine))


@pytest.fixture(scope="session")
def built_app(api_engine: sa.Engine) -> Flask:
    """Building it takes longer than most tests. It holds nothing but its Context; tests take `app`."""
    return create_app(make_context(Sessions(api_engine)))


@pytest.fixture
def app(serving: Context, built_app: Flask) -> Flask:
    """The API on this test's Context. Whoever changes anything else about an API builds one."""
    built_app.extensions["ctrip"] = serving
    return built_app


@pytest.fixture
def as_merchant(api_ctx: Context, app: Flask) -> Callable[..., Api]:
    """Make a new merchant's client; with `scopes`, of fewer than all."""

    def make(*, scopes: tuple[str, ...] = tuple(MERCHANT_SCOPES), tolerance_bps: int = 0) -> Api:
        merchant_id, _ = create_merchant(api_ctx, by="tests", name="A shop", tolerance_bps=tolerance_bps)
        _, key = create_key(api_ctx, by="tests", merchant_id=merchant_id, scopes=scopes)
        return Api(app.test_client(), key, merchant_id)

    return make


@pytest.fixture
def shop(as_merchant: Callable[..., Api]) -> Api:
    return as_merchant()


@pytest.fixture
def rival(as_merchant: Callable[..., Api]) -> Api:
    """Another merchant."""
    return as_merchant()


@pytest.fixture
def operator(api_ctx: Context, app: Flask) -> Api:
    _, key = create_key(api_ctx, by="tests", merchant_id=None, scopes=["admin"])
    return Api(app.test_client(), key)


@pytest.fixture
def nobody(app: Flask) -> Api:
    """A client without a key."""
    return Api(app.test_client(), None)
