"""What each process is built of: only what it may hold, and no library that it does not need."""

import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from ctrip.bootstrap import bootstrap, endpoint_clients
from ctrip.context import Context
from ctrip.database.engine import Sessions
from ctrip.domain.ids import Prefix
from ctrip.settings import Role
from tests.conftest import ROOT

pytestmark = pytest.mark.infra

HELD = {
    Role.API: {"wallet", "box", "poster"},
    Role.LISTENER: {"clients"},
    Role.SWEEPER: {"clients", "wallet", "signer"},
    Role.WEBHOOK: {"box", "poster"},
    Role.EMAIL: {"mailer"},
    Role.SCHEDULER: {"rate_sources"},
    Role.CLI: {"clients", "wallet", "box"},
}


MAIL = {"SMTP_URL": "smtp://127.0.0.1:1", "MAIL_FROM": "shop@example.com", "OPERATOR_EMAIL": "operator@example.com"}


def built(role: Role | str, environment: dict[str, str]) -> Context:
    ctx = bootstrap(role, environment)
    ctx.sessions.engine.dispose()
    return ctx


@pytest.mark.parametrize("role", Role)
def test_a_process_gets_only_what_it_may_hold(role: Role, environment: dict[str, str], sessions: Sessions) -> None:
    ctx = built(role, environment | MAIL)
    parts = ("clients", "wallet", "signer", "box", "poster", "mailer", "rate_sources")
    assert {name for name in parts if getattr(ctx, name)} == HELD[role]
    assert ctx.settings.role is role
    assert built(str(role), environment).settings.role is role


def test_the_sources_that_are_asked_are_those_that_are_named(environment: dict[str, str], sessions: Sessions) -> None:
    two = built(Role.SCHEDULER, environment | {"RATE_SOURCES": "kraken,coingecko"})
    assert list(two.rate_sources) == ["kraken", "coingecko"]
    assert not built(Role.SCHEDULER, environment | {"RATE_SOURCES": ""}).rate_sources


@pytest.mark.parametrize(
    ("left_out", "said"),
    [(set(), []), ({"OPERATOR_EMAIL"}, ["OPERATOR_EMAIL"]), (set(MAIL), ["SMTP_URL"])],
)
def test_a_worker_that_cannot_send_every_e_mail_says_so_once(
    environment: dict[str, str],
    sessions: Sessions,
    capfd: pytest.CaptureFixture[str],
    left_out: set[str],
    said: list[str],
) -> None:
    built(Role.EMAIL, environment | {name: value for name, value in MAIL.items() if name not in left_out})
    assert re.findall(r'"missing": "(\w+)", "event": "emails_are_skipped"', capfd.readouterr().err) == said


LOADED = "print(*sorted({name.partition('.')[0] for name in sys.modules}))"


@pytest.mark.parametrize("role", [Role.LISTENER, Role.SWEEPER, Role.WEBHOOK])
def test_a_booted_worker_has_not_loaded_what_it_never_uses(
    role: Role, environment: dict[str, str], sessions: Sessions
) -> None:
    program = (
        f"import sys, os; import actors.{role}; from ctrip.bootstrap import bootstrap; bootstrap('{role}'); {LOADED}"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    loaded = set(ran.stdout.split())
    assert "web3" not in loaded
    assert ("eth_account" in loaded) == (role is Role.SWEEPER)
    assert "iso4217" not in loaded, "prices are not asked for here"


def test_a_disabled_chain_has_no_client(environment: dict[str, str], sessions: Sessions, tmp_path: Path) -> None:
    (row,) = yaml.safe_load(Path(environment["CHAINS_FILE"]).read_text())["chains"]
    rows = [row, row | {"name": "resting", "chain_id": 5, "enabled": False}]
    (tmp_path / "chains.yaml").write_text(yaml.safe_dump({"chains": rows}))
    ctx = built(Role.LISTENER, environment | {"CHAINS_FILE": str(tmp_path / "chains.yaml")})
    assert len(ctx.settings.chains) == 2
    assert set(ctx.clients) == set(endpoint_clients(ctx.settings)) == {row["chain_id"]}


def test_ids_sort_in_the_order_in_which_they_were_made(ctx: Context) -> None:
    made = [ctx.new_id(Prefix.EVENT) for _ in range(2000)]
    assert all(before < after for before, after in pairwise(made))


def test_ids_differ_whoever_makes_them(ctx: Context) -> None:
    ready = threading.Barrier(8)

    def make(_: int) -> list[str]:
        ready.wait()
        return [ctx.new_id(Prefix.DELIVERY) for _ in range(500)]

    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(make, range(8)))
    assert len({made for batch in batches for made in batch}) == 4000
    assert all(before < after for batch in batches for before, after in pairwise(batch))


def test_the_clock_is_aware_and_in_utc(ctx: Context) -> None:
    assert ctx.now().tzinfo is UTC
    assert abs(ctx.now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_the_box_opens_what_an_older_key_closed(environment: dict[str, str], sessions: Sessions) -> None:
    newer = "A" * 43 + "="
    old = built(Role.API, environment).box
    rotated = built(Role.API, environment | {"SECRETS_KEY": f"{newer},{environment['SECRETS_KEY']}"}).box
    assert old is not None
    assert rotated is not None
    assert rotated.decrypt(old.encrypt(b"whsec_1")) == b"whsec_1"
    assert built(Role.WEBHOOK, environment | {"SECRETS_KEY": newer}).box.decrypt(rotated.encrypt(b"x")) == b"x"  # type: ignore[union-attr]
    with pytest.raises(Exception, match="SECRETS_KEY: none of its keys opens a stored secret") as refusal:
        old.decrypt(rotated.encrypt(b"x"))
    assert newer not in str(refusal.value)
