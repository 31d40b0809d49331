"""The operator's tool, run in this process as `ctrip …` would run."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ctrip.cli import main


@dataclass(frozen=True)
class Ran:
    """What a run of the tool left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Tool = Callable[..., Ran]


def tool(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Tool]:
    """Run it in the servers' environment, but without the keys that only the sweeper has."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("WALLET_MNEMONIC", "GAS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*args: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["ctrip", *args])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as exited:
            code = int(exited.code or 0)
        told = capsys.readouterr()
        return Ran(code, told.out, told.err)

    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield run
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
