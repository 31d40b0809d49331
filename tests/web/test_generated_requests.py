"""Requests that schemathesis makes of the document, against the API as it is run: SEEDS=1,2 tells these seeds.

Chains of requests (create, then what its answer links to) are among them. Each caller has a run of its own: a
merchant's key, an operator's, and none.
"""

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ctrip.context import Context
from tests.api import Api
from tests.contract import Contract, contract_of
from tests.web.granian import api_environment, serving
from tests.web.objects import make_merchants_objects, make_operators_objects

pytestmark = pytest.mark.infra

ALL_PHASES = "examples,coverage,fuzzing,stateful"
REFUSED_ALL_THE_SAME = ["2xx", "401", "403", "404", "409", "429", "422"]
"""What a right body may be answered with: a chain, a token or a destination that there is not is a 422 all the same."""


@dataclass(frozen=True)
class Run:
    """What schemathesis is to send: to which paths, with which key, and about how many requests to each route."""

    paths: str
    key: str | None
    examples: int
    phases: str


@dataclass(frozen=True)
class Place:
    """A running API, its document, and a folder for what schemathesis says."""

    url: str
    contract: Contract
    folder: Path


@pytest.fixture
def place(postgres_url: str, redis_url: str, tmp_path: Path, app: Any) -> Iterator[Place]:
    quotas = {"RATE_LIMIT_PER_KEY": "off", "RATE_LIMIT_PER_ADDRESS": "off"}
    with serving(api_environment(postgres_url, tmp_path, REDIS_URL=redis_url, **quotas)) as (_, url):
        yield Place(url, contract_of(app), tmp_path)


def test_what_is_generated_is_answered_as_the_document_says(
    place: Place, shop: Api, operator: Api, api_ctx: Context
) -> None:
    populate(shop, operator, api_ctx)
    runs = (
        Run("^/api/", shop.key, 2, "coverage,stateful"),
        Run("^/admin/", operator.key, 1, "fuzzing"),
        Run("^/", None, 1, "fuzzing"),
    )
    assert tell(place, runs, seed=1) >= 500
    still_good(place, shop, operator)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [int(seed) for seed in os.environ.get("SEEDS", "").split(",") if seed] or [None])
def test_much_that_is_generated_is_answered_as_the_document_says(
    place: Place, shop: Api, operator: Api, api_ctx: Context, seed: int | None
) -> None:
    populate(shop, operator, api_ctx)
    runs = (
        Run("^/api/", shop.key, 60, ALL_PHASES),
        Run("^/admin/", operator.key, 60, ALL_PHASES),
        Run("^/", None, 4, ALL_PHASES),
    )
    assert tell(place, runs, seed=secrets.randbelow(10**6) if seed is None else seed) >= 5_000
    still_good(place, shop, operator)


def populate(shop: Api, operator: Api, ctx: Context) -> None:
    """Make something of everything; a key too that is newer than the callers': generated requests revoke the newest."""
    make_merchants_objects(shop, ctx)
    make_operators_objects(operator, ctx)


def still_good(place: Place, shop: Api, operator: Api) -> None:
    """Fail where a run has revoked the key that it came with: everything after that was a 401."""
    assert shop.get("/api/v1/payments").status_code == 200
    assert operator.get("/admin/keys").status_code == 200


def tell(place: Place, runs: tuple[Run, ...], *, seed: int) -> int:
    """Let schemathesis make its requests; fail with what it found. Returns how many they were."""
    config = place.folder / "schemathesis.toml"
    config.write_text(configuration(place.contract))
    sent = 0
    for number, run in enumerate(runs):
        report = place.folder / f"run-{number}.json"
        said = schemathesis(place, run, config=config, report=report, seed=seed)
        told = json.loads(report.read_text())
        sent += told["test_cases"]["generated"]
        print(f"seed {seed}, {run.paths}: {told['test_cases']} in {told['running_time']:.0f} s")  # noqa: T201
        assert said.returncode == 0, said.stdout[-20_000:] + said.stderr[-2_000:]
        assert told["complete"] and not told["errors"], told
        tested = told["operations"]
        assert tested["tested"] == tested["selected"] > 0, tested
    return sent


def schemathesis(
    place: Place, run: Run, *, config: Path, report: Path, seed: int
) -> "subprocess.CompletedProcess[str]":
    options = ["--phases", run.phases, "--max-examples", str(run.examples), "--include-path-regex", run.paths]
    options += ["--seed", str(seed), "--generation-database", "none", "--continue-on-failure"]
    options += ["--no-color", "--suppress-health-check", "all", "--report", "json", "--report-json-path", str(report)]
    if run.key is not None:
        options += ["--header", f"Authorization: Bearer {run.key}"]
    command = (sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run")
    return subprocess.run(
        [*command, f"{place.url}/openapi.json", *options],
        cwd=place.folder,
        capture_output=True,
        text=True,
        timeout=1_800,
        check=False,
    )


def configuration(contract: Contract) -> str:
    """Which checks are narrowed where. All of them are on; the document decides where, so new routes are in it."""
    lines = []
    paths = {path for _, path, _ in contract.operations()}
    for _, path, operation in contract.operations():
        checks = []
        if "requestBody" in operation:
            checks.append(f"positive_data_acceptance.expected-statuses = {json.dumps(REFUSED_ALL_THE_SAME)}")
        # `/things/redo` is a thing by the name of `redo` as well: what `/things/{id}` answers is asked of both.
        if any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", other), path) for other in paths - {path}):
            checks += ["unsupported_method.enabled = false", "allow_header_conformance.enabled = false"]
        if checks:
            name = json.dumps(operation["operationId"])
            lines += ["[[operations]]", f"include-operation-id = {name}", "[operations.checks]", *checks]
    return "\n".join(lines)
