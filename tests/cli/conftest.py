from collections.abc import Iterator

import pytest

from ctrip.context import Context
from tests.tool import Tool, tool


@pytest.fixture
def ctrip(
    ctx: Context, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Tool]:
    """Runs `ctrip …` in this process, on the database of `ctx`."""
    yield from tool(environment, monkeypatch, capsys)
