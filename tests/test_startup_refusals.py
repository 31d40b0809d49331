"""What must not start does not: one message that names the key, what is wrong and what would be right, and no secret.

Each fault is shown to every role that it concerns, within this process; to the real entry of each role at least one.
"""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from prometheus_client import REGISTRY

from ctrip.bootstrap import bootstrap
from ctrip.context import Context
from ctrip.database import cursors, schema
from ctrip.database.engine import Sessions
from ctrip.database.models import deposit_addresses
from ctrip.domain.addresses import checksum_address
from ctrip.domain.sweeps import IntentState
from ctrip.domain.transfers import TransferStatus
from ctrip.errors import MisconfiguredError
from ctrip.settings import Role
from tests.blockchain.test_addresses import xpub
from tests.conftest import GAS_KEY, MNEMONIC, ROOT, SECRETS_KEY, XPUB
from tests.factories import asked_of, header, ids, store_payment, store_sweep, store_transfer

pytestmark = pytest.mark.infra

PASSWORD = "correct-horse-battery"
OTHER_PHRASE = "test " * 11 + "junk"
SECRETS = (MNEMONIC, OTHER_PHRASE, GAS_KEY, GAS_KEY[2:], XPUB, SECRETS_KEY, PASSWORD, "xpub6", "SECRET-OF-THE-PROVIDER")
ENTRIES = {
    Role.API: [sys.executable, "-c", "import wsgi; print('started')"],
    Role.SCHEDULER: [sys.executable, "-m", "actors.scheduler"],
    Role.CLI: [sys.executable, "-m", "ctrip.cli", "loops"],
} | {role: ["bash", "worker.sh", str(role)] for role in (Role.LISTENER, Role.SWEEPER, Role.WEBHOOK)}
STARTED = re.compile("started|worker_ready|scheduler_ready|loops")
SERVERS = tuple(role for role in Role if role is not Role.CLI)

Environment = dict[str, str]


def refused_start(role: Role, environment: Environment) -> str:
    """Run the real entry of a role to its end, which must be a refusal. Returns what it said."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        ENTRIES[role],
        cwd=ROOT,
        env=environment | {"PATH": path, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0, said
    assert "Traceback" not in said, said
    assert not STARTED.search(said), said
    assert_no_secret(said)
    return said


def refused(role: Role, environment: Environment) -> str:
    """Build a role in this process, which must refuse. Returns the message."""
    with pytest.raises(MisconfiguredError) as refusal:
        bootstrap(role, environment)
    assert_no_secret(refusal.value.detail)
    return refusal.value.detail


def assert_no_secret(said: str) -> None:
    assert not [secret for secret in SECRETS if secret in said], "a secret is shown"


@pytest.fixture
def whole(environment: Environment, sessions: Sessions) -> Environment:
    """The environment of a small cTrip on an emptied database."""
    return dict(environment)


@pytest.fixture
def with_rows(whole: Environment, tmp_path: Path) -> Callable[..., Environment]:
    """The same with the chain's row changed; None takes a key away."""

    def change(**changes: Any) -> Environment:
        (row,) = yaml.safe_load(Path(whole["CHAINS_FILE"]).read_text())["chains"]
        path = tmp_path / "chains.yaml"
        path.write_text(yaml.safe_dump({"chains": [{k: v for k, v in (row | changes).items() if v is not None}]}))
        return whole | {"CHAINS_FILE": str(path)}

    return change


@pytest.fixture(autouse=True)
def _leave_the_logs_alone() -> Iterator[None]:
    """Building a role takes the root logger over."""

    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


def test_with_nothing_wrong_every_role_can_be_built(whole: Environment) -> None:
    for role in Role:
        bootstrap(role, whole).sessions.engine.dispose()


# --- the settings ---------------------------------------------------------------------------------------------------


def test_an_invalid_chains_file(whole: Environment, tmp_path: Path) -> None:
    path = tmp_path / "chains.yaml"
    path.write_text("chains:\n  - name: anvil\n   rpc_urls: [https://node.example/SECRET-OF-THE-PROVIDER]\n")
    environment = whole | {"CHAINS_FILE": str(path)}
    words = f"CHAINS_FILE: {path} is no YAML: line 3, column "
    for role in (Role.CLI, Role.WEBHOOK):
        assert words in refused_start(role, environment)
    for role in Role:
        assert words in refused(role, environment)


def test_a_missing_treasury(with_rows: Callable[..., Environment]) -> None:
    environment = with_rows(treasury=None, rpc_urls=["https://node.example/SECRET-OF-THE-PROVIDER"])
    words = "chains[0] (anvil).treasury is missing; it is the address that sweeps pay to"
    assert words in refused_start(Role.SCHEDULER, environment)
    for role in Role:
        assert words in refused(role, environment)


def test_an_xpub_of_the_wrong_depth(whole: Environment) -> None:
    environment = whole | {"WALLET_XPUB": xpub(depth=4, child=0)}
    words = "WALLET_XPUB: has depth 4, not 3; WALLET_XPUB is the account's extended public key at m/44'/60'/0'"
    for role in (Role.API, Role.SWEEPER, Role.CLI):
        assert words in refused(role, environment)


# --- the wallet -----------------------------------------------------------------------------------------------------


def test_a_wallet_that_does_not_match_the_xpub(whole: Environment) -> None:
    environment = whole | {"WALLET_MNEMONIC": OTHER_PHRASE}
    words = "WALLET_MNEMONIC: is the seed of another wallet than WALLET_XPUB"
    assert words in refused_start(Role.SWEEPER, environment)
    assert words in refused(Role.SWEEPER, environment)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"WALLET_MNEMONIC": "geheim " * 12}, "WALLET_MNEMONIC: is no seed phrase"),
        ({"GAS_KEY": "0x" + "zz" * 32}, "GAS_KEY: is no private key; it is 0x and 64 hex digits"),
        ({"GAS_KEY": ""}, "GAS_KEY: is missing"),
    ],
)
def test_a_key_that_is_none(whole: Environment, changes: Environment, words: str) -> None:
    assert words in refused(Role.SWEEPER, whole | changes)


def test_a_treasury_that_is_a_deposit_address(whole: Environment, ctx: Context) -> None:
    with ctx.sessions.begin() as session:
        store_payment(session, new_id=ids(), address=ctx.settings.chains[0].treasury)
    assert "the treasury of anvil is one of our deposit addresses" in refused(Role.SWEEPER, whole)


# --- the database ---------------------------------------------------------------------------------------------------


def test_an_unreachable_database(whole: Environment) -> None:
    environment = whole | {"DATABASE_URL": f"postgresql://ctrip:{PASSWORD}@127.0.0.1:1/ctrip"}
    words = "DATABASE_URL: the database 127.0.0.1:1/ctrip cannot be reached: no server listens there"
    assert words in refused_start(Role.API, environment)
    for role in Role:
        assert words in refused(role, environment)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"postgresql://ctrip:{PASSWORD}@no.such.host.invalid/ctrip", "its host name is unknown"),
        (f"postgresql://ctrip:{PASSWORD}@/ctrip?host=%2Fno%2Fsuch%2Ffolder", "no server's socket is there"),
    ],
)
def test_the_reason_is_told_without_the_drivers_words(whole: Environment, url: str, words: str) -> None:
    assert words in refused(Role.API, whole | {"DATABASE_URL": url})


def test_a_database_that_does_not_exist(whole: Environment) -> None:
    place, _, options = whole["DATABASE_URL"].partition("?")
    url = f"{place.rpartition('/')[0]}/nothing?{options}"
    assert "it has no such database" in refused(Role.API, whole | {"DATABASE_URL": url})


def test_a_schema_of_another_version(whole: Environment, sessions: Sessions) -> None:
    def set_revision(revision: str | None) -> None:
        with sessions.begin() as session:
            session.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})

    head = schema.shipped_revision()
    set_revision("0000")
    try:
        for role in Role:
            message = refused(role, whole)
            assert f"is at revision 0000, this program needs {head}; run `ctrip db upgrade`" in message
    finally:
        set_revision(head)


def test_a_postgres_that_may_forget_what_it_acknowledged_in_production(whole: Environment, sessions: Sessions) -> None:
    def configure(change: str) -> None:
        with sessions.begin() as session:
            session.execute(sa.text(f"ALTER DATABASE postgres {change}"))

    production = whole | {"ENV": "production", "WEBHOOK_ALLOW_CIDRS": "", "RATE_SOURCES": ""}
    for role in SERVERS:
        assert "with synchronous_commit off" in refused(role, production)
    bootstrap(Role.CLI, production).sessions.engine.dispose()
    configure("SET synchronous_commit = on")
    try:
        for role in SERVERS:
            bootstrap(role, production).sessions.engine.dispose()
    finally:
        configure("RESET synchronous_commit")


# --- the chain ------------------------------------------------------------------------------------------------------


def test_a_wrong_chain_id_on_the_node(with_rows: Callable[..., Environment]) -> None:
    environment = with_rows(chain_id=1, tokens=[])
    words = re.compile(
        r"chain anvil is configured with chain_id 1, but \S+ is on chain id 31337: correct chain_id or rpc_"
    )
    assert words.search(refused_start(Role.LISTENER, environment))
    for role in (Role.LISTENER, Role.SWEEPER):
        assert words.search(refused(role, environment))


def test_one_wrong_node_among_good_ones(with_rows: Callable[..., Environment], whole: Environment) -> None:
    (row,) = yaml.safe_load(Path(whole["CHAINS_FILE"]).read_text())["chains"]
    dead = "http://127.0.0.1:1/v3/SECRET-OF-THE-PROVIDER"
    environment = with_rows(chain_id=1, rpc_urls=[dead, *row["rpc_urls"]], tokens=[])
    assert "is on chain id 31337" in refused(Role.LISTENER, environment)


def test_a_node_that_is_away_keeps_nobody_from_starting(
    with_rows: Callable[..., Environment], capsys: pytest.CaptureFixture[str]
) -> None:
    environment = with_rows(rpc_urls=["http://127.0.0.1:1/v3/SECRET-OF-THE-PROVIDER"])
    for role in (Role.LISTENER, Role.SWEEPER):
        bootstrap(role, environment).sessions.engine.dispose()
    said = capsys.readouterr().err
    assert said.count("node_unreachable_at_start") >= 2
    assert_no_secret(said)


def test_a_token_with_the_wrong_decimals(with_rows: Callable[..., Environment], whole: Environment) -> None:
    (row,) = yaml.safe_load(Path(whole["CHAINS_FILE"]).read_text())["chains"]
    environment = with_rows(tokens=[row["tokens"][0] | {"decimals": 18}])
    words = "chain anvil: token USDC is listed with 18 decimals, but its contract 0x"
    assert words in refused(Role.LISTENER, environment)


@pytest.mark.parametrize("is_away", [True, False])
def test_a_token_that_tells_nothing_at_the_start_is_shown_until_it_does(
    with_rows: Callable[..., Environment], whole: Environment, *, is_away: bool
) -> None:
    (row,) = yaml.safe_load(Path(whole["CHAINS_FILE"]).read_text())["chains"]
    symbol = "GONE" if is_away else "EMPTY"
    token = {"symbol": symbol, "address": checksum_address(symbol.encode().ljust(20, b"\1")), "decimals": 6}
    urls = ["http://127.0.0.1:1"] if is_away else row["rpc_urls"]
    bootstrap(Role.LISTENER, with_rows(rpc_urls=urls, tokens=[token])).sessions.engine.dispose()
    assert REGISTRY.get_sample_value("ctrip_token_unconfirmed", {"chain": "anvil", "token": symbol}) == 1


def test_a_chain_that_was_removed_while_it_holds_money(
    whole: Environment, with_rows: Callable[..., Environment], sessions: Sessions
) -> None:
    new_id = ids()
    with sessions.begin() as session:
        payment = store_payment(session, new_id=new_id)
        cursors.start(session, asked_of(payment).chain_id, header(0))
        store_transfer(session, payment, status=TransferStatus.FINAL)
    removed = with_rows(name="other", chain_id=31338, rpc_urls=["http://127.0.0.1:1"], tokens=[])
    words = (
        "CHAINS_FILE: has no row for anvil (chain_id 31337, 1 addresses), but deposit addresses hold money there; "
        "put the row back, with `enabled: false` if the chain should rest"
    )
    for role in SERVERS:
        assert words in refused(role, removed)
    for lawful in (whole, with_rows(enabled=False)):
        bootstrap(Role.API, lawful).sessions.engine.dispose()
    # The tools are what one finds out with.
    gone = with_rows(name="other", chain_id=31338, rpc_urls=["http://127.0.0.1:1"], tokens=[])
    bootstrap(Role.CLI, gone).sessions.engine.dispose()

    def sweep(**values: object) -> None:
        with sessions.begin() as session:
            session.execute(sa.text("DELETE FROM sweep_attempts"))
            session.execute(sa.text("DELETE FROM sweep_intents"))
            store_sweep(session, payment, new_id=new_id, **values)

    sweep(state=IntentState.SENT, mined_tx_hash=None, mined_block=None, mined_block_hash=None)
    assert words in refused(Role.API, gone), "a sweep that is only on its way"
    sweep(amount=999)
    assert words in refused(Role.API, gone), "a sweep that left something"
    sweep()
    bootstrap(Role.API, gone).sessions.engine.dispose()
    with sessions.begin() as session:
        store_transfer(session, payment, 5, 11, status=TransferStatus.SEEN)
    assert words in refused(Role.API, gone), "money that is not final yet"


def test_a_removed_chain_whose_only_money_a_reorg_took(
    with_rows: Callable[..., Environment], sessions: Sessions
) -> None:
    with sessions.begin() as session:
        payment = store_payment(session, new_id=ids())
        cursors.start(session, asked_of(payment).chain_id, header(0))
        store_transfer(session, payment, status=TransferStatus.ORPHANED)
    gone = with_rows(name="other", chain_id=31338, rpc_urls=["http://127.0.0.1:1"], tokens=[])
    bootstrap(Role.API, gone).sessions.engine.dispose()


def test_addresses_of_another_wallet_are_told_to_whoever_sweeps(
    whole: Environment, sessions: Sessions, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> bool:
        bootstrap(Role.SWEEPER, whole).sessions.engine.dispose()
        return "addresses_of_another_wallet" in capsys.readouterr().err

    assert not told()
    with sessions.begin() as session:
        store_payment(session, new_id=ids())
    assert told()
    with sessions.begin() as session:
        own = bootstrap(Role.API, whole).wallet
        assert own is not None
        session.execute(sa.update(deposit_addresses).values(wallet_fingerprint=own.fingerprint))
    assert not told()
