"""The API on a real Postgres, as for `tests/web`, behind a real server."""

from collections.abc import Iterator

import pytest
from ctrip_client import Client
from flask import Flask

from tests.api import Api
from tests.clients.line import Line, served
from tests.web.conftest import api_ctx, app, as_merchant, built_app, serving, shop

__all__ = ["api_ctx", "app", "as_merchant", "built_app", "serving", "shop"]


@pytest.fixture
def line(app: Flask) -> Iterator[Line]:
    with served(app) as line:
        yield line


@pytest.fixture
def client(line: Line, shop: Api) -> Iterator[Client]:
    assert shop.key is not None
    with Client(line.url, api_key=shop.key) as client:
        yield client
