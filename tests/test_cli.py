"""The operator's tool on a real database and chain: what it says, what it writes, and how it exits."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from ctrip.cli import NOUNS
from ctrip.cli.output import clean
from ctrip.context import Context
from ctrip.database import cursors
from ctrip.database.models import api_keys, deposit_addresses, sweep_intents
from ctrip.domain.addresses import NATIVE
from ctrip.domain.merchants import MERCHANT_SCOPES, Scope
from ctrip.domain.sweeps import HeldReason, IntentState
from ctrip.services import merchants
from tests.conftest import MERCHANT_ID, MNEMONIC, ROOT, XPUB
from tests.devchain import ETHER, USDC, DevChain
from tests.factories import CHAIN_ID, header, store_payment, store_sweep, store_transfer
from tests.tool import Tool, tool
from tests.world import World

pytestmark = pytest.mark.infra


@pytest.fixture
def ctrip(
    ctx: Context, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Tool]:
    """Runs `ctrip …` in this process, on the database of `ctx`."""
    yield from tool(environment, monkeypatch, capsys)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the tool itself ------------------------------------------------------------------------------------------------


def test_every_noun_has_a_file_and_helps(ctrip: Tool) -> None:
    files = {path.stem.replace("_", "-") for path in (ROOT / "ctrip" / "cli").glob("[a-z]*.py")}
    assert set(NOUNS) == files - {"files", "output", "spans"}
    told = ctrip("--help")
    assert told.code == 0
    for noun in NOUNS:
        assert noun in told.out
        assert "Usage: ctrip " + noun in ctrip(noun, "--help").out


def test_the_module_runs_from_a_checkout() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ctrip.cli", "secrets", "key"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}=\n", ran.stdout)
    assert ran.stderr == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["keys", "create"], "say either --merchant ID or --operator"),
        (["keys", "create", "--operator", "--merchant", "mer_1"], "say either --merchant ID or --operator"),
        (["keys", "create", "--merchant", "mer_nobody"], "ctrip: there is no merchant 'mer_nobody'"),
        (["keys", "create", "--merchant", "x", "--scope", "admin"], "Invalid value for '--scope'"),
        (["keys", "revoke", "key_nothing"], "ctrip: there is no key 'key_nothing'"),
        (["payments", "show", "pay_nothing"], "ctrip: there is no payment 'pay_nothing'"),
        (["payments", "show", "pay_\udcff"], "ctrip: the argument 'pay_\\udcff' is not UTF-8"),
        (["merchants", "create", "--name", ""], "ctrip: the name has 1 to 200 printable characters"),
        (["wallet", "advance", "0"], "Invalid value for 'COUNT'"),
        (["sweeps", "resume", "swp_nothing"], "ctrip: no sweep swp_nothing is held"),
        (["chains", "resume", "nowhere", "--from", "1"], "ctrip: there is no enabled chain 'nowhere'"),
        (["chains", "resume", "anvil", "--from", "1"], "ctrip: chain anvil is not stopped"),
        (["chains", "resume", "anvil", "--from", "-1"], "Invalid value for '--from'"),
    ],
)
def test_a_mistake_is_one_message_and_no_traceback(ctrip: Tool, args: list[str], words: str) -> None:
    ran = ctrip(*args)
    assert ran.code != 0
    assert ran.out == ""
    assert words in ran.err
    assert "Traceback" not in ran.err


def test_an_id_is_never_cut(ctrip: Tool, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    key_id, _ = merchants.create_key(ctx, by="tests", merchant_id=MERCHANT_ID, scopes=["payments:read"])
    assert key_id in ctrip("keys", "list").out
    monkeypatch.setenv("COLUMNS", "60")
    narrow = ctrip("keys", "list").out
    assert max(map(len, narrow.splitlines())) <= 60
    assert key_id in narrow, "in one piece, to be copied"


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b[2Jb\nc\u202ed") == "a·[2Jb·c·d"
    assert clean(None) == ""


# --- merchants and keys ---------------------------------------------------------------------------------------------


def test_a_merchant_and_its_key_are_made(ctrip: Tool, ctx: Context) -> None:
    merchant = ctrip("merchants", "create", "--name", "A shop", "--tolerance-bps", "50", "--json").json
    assert merchant["webhook_secret"].startswith("whsec_")
    made = ctrip("keys", "create", "--merchant", merchant["id"], "--scope", "payments:read", "--json").json
    identity = merchants.authenticate(ctx, made["key"], address=None)
    assert (identity.key_id, identity.merchant_id) == (made["id"], merchant["id"])
    assert identity.scopes == {Scope.PAYMENTS_READ}


def test_a_key_may_do_everything_that_a_merchant_may_unless_said_otherwise(ctrip: Tool, ctx: Context) -> None:
    told = ctrip("keys", "create", "--merchant", MERCHANT_ID)
    key = re.search(r"sk_\S+", told.out)
    assert key is not None
    assert merchants.authenticate(ctx, key[0], address=None).scopes == MERCHANT_SCOPES


def test_a_key_is_rotated_and_bound_to_networks(ctrip: Tool, ctx: Context) -> None:
    bound = ("--allow-ip", "203.0.113.0/24", "--allow-ip", "2001:db8::7")
    made = ctrip("keys", "create", "--merchant", MERCHANT_ID, *bound, "--json").json
    rotated = ctrip("keys", "rotate", made["id"], "--json").json
    for key in (made["key"], rotated["key"]):
        assert merchants.authenticate(ctx, key, address="2001:db8::7").merchant_id == MERCHANT_ID
    assert ctrip("keys", "list", "--json").json[1]["replaced_by"] == rotated["id"]
    options = ("--overlap", "0s", "--allow-ip", "203.0.113.7", "--json")
    last = ctrip("keys", "rotate", rotated["id"], *options).json
    assert merchants.authenticate(ctx, last["key"], address="203.0.113.7").key_id == last["id"]
    assert "expired" in ctrip("keys", "list").out
    too_long = ctrip("keys", "rotate", last["id"], "--overlap", "8d")
    assert (too_long.code, "of 7 days at most" in too_long.err) == (2, True)
    refused = ctrip("keys", "create", "--merchant", MERCHANT_ID, "--allow-ip", "10.1.0.0/8")
    assert (refused.code, "do you mean 10.0.0.0/8?" in refused.err) == (1, True)


def test_an_operators_key_goes_into_a_file_and_is_not_shown(
    ctrip: Tool, ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out, args in ((tmp_path / "mine", ["--out", "mine"]), (tmp_path / "operator.key", [])):
        before = os.umask(0)
        try:
            told = ctrip("keys", "create", "--operator", *args)
        finally:
            os.umask(before)
        key = out.read_text().strip()
        assert merchants.authenticate(ctx, key, address=None).scopes == {Scope.ADMIN}
        assert mode(out) == 0o600
        assert key not in told.out + told.err


def test_a_file_that_is_there_is_never_written_over_and_no_key_is_made(
    ctrip: Tool, ctx: Context, tmp_path: Path
) -> None:
    out = tmp_path / "precious"
    out.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (out, tmp_path / "link", tmp_path / "nowhere" / "key"):
        ran = ctrip("keys", "create", "--operator", "--out", str(path))
        assert ran.code != 0
        assert str(path) in ran.err
    assert out.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    with ctx.sessions.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(api_keys)) == 0


def test_where_no_key_could_be_made_no_file_is_left(ctrip: Tool, tmp_path: Path) -> None:
    ran = ctrip("keys", "create", "--merchant", "mer_nobody", "--out", str(tmp_path / "key"))
    assert ran.code != 0
    assert not (tmp_path / "key").exists()


def test_keys_are_listed_and_revoked(ctrip: Tool, ctx: Context) -> None:
    first, key = merchants.create_key(ctx, by="tests", merchant_id=MERCHANT_ID, scopes=["payments:read"])
    second, _ = merchants.create_key(
        ctx, by="tests", merchant_id=None, scopes=["admin"], expires_at=ctx.now() + timedelta(days=1)
    )
    assert ctrip("keys", "revoke", first).out.startswith(f"{first} is revoked since ")
    assert [row["id"] for row in ctrip("keys", "list", "--json").json] == [second, first]
    table = ctrip("keys", "list").out
    assert re.search(rf"{second} +\(operator\) +admin +until ", table)
    assert re.search(rf"{first} +{MERCHANT_ID} +payments:read +revoked ", table)
    assert key.split("_")[2] not in table
    assert ctrip("keys", "list", "--merchant", "mer_other").out == "keys: none\n"


# --- chains ---------------------------------------------------------------------------------------------------------


def test_good_chains_are_good(ctrip: Tool, anvil: DevChain) -> None:
    ran = ctrip("chains", "check", "--json")
    (chain,) = ran.json
    assert ran.code == 0
    assert chain["is_good"]
    assert chain["endpoints"][0]["head_block"] == anvil.block_number()
    assert "good" in ctrip("chains", "check").out


def test_faults_of_nodes_and_tokens_are_told_endpoint_by_endpoint(
    ctrip: Tool, environment: dict[str, str], anvil: DevChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = yaml.safe_load(Path(environment["CHAINS_FILE"]).read_text())["chains"]
    dead = "http://127.0.0.1:1/v3/SECRET-OF-THE-PROVIDER"
    no_token = {"symbol": "NONE", "address": "0x" + "12" * 20, "decimals": 6}
    rows = [
        row | {"rpc_urls": [dead, anvil.url], "tokens": [row["tokens"][0] | {"decimals": 18}, no_token]},
        row | {"name": "other", "chain_id": 1, "rpc_urls": [anvil.url, f"{anvil.url}/v3/SECRET"]},
        row | {"name": "resting", "chain_id": 5, "enabled": False},
    ]
    path = tmp_path / "chains.yaml"
    path.write_text(yaml.safe_dump({"chains": rows}))
    monkeypatch.setenv("CHAINS_FILE", str(path))
    ran = ctrip("chains", "check", "--json")
    assert ran.code == 1
    assert "SECRET" not in ran.out + ran.err
    first, second, third = ran.json
    assert first["endpoints"][0]["head_block"] is None
    assert first["endpoints"][1]["faults"][0] == "USDC: listed with 18 decimals, its contract says 6"
    assert first["endpoints"][1]["faults"][1].startswith("NONE: its contract does not tell its decimals")
    assert "is on chain id 31337" in second["endpoints"][0]["faults"][0]
    assert second["faults"] == ["no endpoint answers"]
    host = anvil.url.removeprefix("http://")
    assert [each["endpoint"] for each in second["endpoints"]] == [host, f"{host}#2"]
    assert third["is_good"]
    table = ctrip("chains", "check")
    assert table.code == 1
    assert "switched off" in table.out
    assert "SECRET" not in table.out


# --- wallet ---------------------------------------------------------------------------------------------------------


def test_a_new_wallet_is_shown_once(ctrip: Tool) -> None:
    told = ctrip("wallet", "init").out
    phrase = re.search(r"^  ((?:[a-z]+ ){23}[a-z]+)$", told, re.MULTILINE)
    xpub = re.search(r"^WALLET_XPUB=(xpub\S+)$", told, re.MULTILINE)
    assert phrase is not None
    assert xpub is not None
    assert phrase[1] not in ctrip("wallet", "init").out


def test_a_new_wallet_goes_into_files(ctrip: Tool, tmp_path: Path) -> None:
    words, xpub = tmp_path / "words", tmp_path / "xpub"
    args = ("wallet", "init", "--mnemonic-file", str(words), "--xpub-file", str(xpub))
    told = ctrip(*args)
    assert words.read_text().strip() not in told.out
    assert (mode(words), mode(xpub)) == (0o600, 0o600)
    assert ctrip("wallet", "xpub", "--mnemonic-file", str(words)).out == xpub.read_text()
    before = words.read_text()
    again = ctrip(*args)
    assert again.code != 0
    assert words.read_text() == before
    words.unlink()
    assert ctrip(*args).code != 0
    assert not words.exists(), "a phrase whose public key could not be kept is of no use"


def test_the_public_key_of_a_phrase_is_printed(ctrip: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "words").write_text("one two three")
    ran = ctrip("wallet", "xpub", "--mnemonic-file", str(tmp_path / "words"))
    assert ran.code == 1
    assert ran.err.startswith("ctrip: WALLET_MNEMONIC: is no seed phrase")
    assert "three" not in ran.err
    monkeypatch.setenv("WALLET_MNEMONIC", MNEMONIC)
    assert ctrip("wallet", "xpub").out == f"{XPUB}\n"


def test_every_issued_address_is_derived_again(
    ctrip: Tool, ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ctx.wallet is not None
    with ctx.sessions.begin() as session:
        for index in range(5):
            store_payment(session, new_id=ctx.new_id, address=ctx.wallet.address(index))
        session.execute(sa.update(deposit_addresses).values(wallet_fingerprint=ctx.wallet.fingerprint))
    monkeypatch.setattr("ctrip.services.wallet.BATCH", 2)
    (tmp_path / "words").write_text(MNEMONIC)
    good = ctrip("wallet", "check", "--mnemonic-file", str(tmp_path / "words"))
    assert good.code == 0
    assert "the seed phrase is WALLET_XPUB's\n5 addresses of wallet 0x" in good.out
    assert "0 are wrong" in good.out

    def change(index: int, **values: object) -> None:
        with ctx.sessions.begin() as session:
            session.execute(
                sa.update(deposit_addresses).where(deposit_addresses.c.derivation_index == index).values(**values)
            )

    change(3, address=b"\x33" * 20)
    change(4, wallet_fingerprint=b"\x44" * 8)
    bad = ctrip("wallet", "check", "--json")
    assert bad.code == 1
    assert (bad.json["checked"], bad.json["wrong"]) == (4, 1)
    assert bad.json["others"] == {"0x" + "44" * 8: 1}
    assert "3" in bad.out


def test_the_phrase_of_another_wallet_is_found_out(ctrip: Tool, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("test " * 11 + "junk")
    ran = ctrip("wallet", "check", "--mnemonic-file", str(tmp_path / "words"))
    assert ran.code == 1
    assert "gives another extended public key than WALLET_XPUB" in ran.err
    assert "junk" not in ran.err + ran.out


def test_indexes_are_skipped_and_only_ever_forward(ctrip: Tool, ctx: Context) -> None:
    def next_index() -> int:
        with ctx.sessions.begin() as session:
            return session.scalar(sa.text("SELECT nextval('deposit_index')")) or 0

    assert next_index() == 0
    assert ctrip("wallet", "advance", "100").out == "100 indexes are skipped; the next address is at index 101\n"
    assert next_index() == 101
    assert ctrip("wallet", "advance", "--", "-5").code != 0
    assert next_index() == 102


# --- payments -------------------------------------------------------------------------------------------------------


def test_the_evidence_of_a_payment_is_shown(ctrip: Tool, ctx: Context, anvil: DevChain, usdc: bytes) -> None:
    world = World(ctx, anvil)
    paid, part = world.ask(ETHER), world.ask(5 * USDC, token=usdc)
    anvil.pay(paid.address, ETHER)
    anvil.pay_token(usdc, part.address, 2 * USDC)
    world.live(12)
    settled = ctrip("payments", "show", paid.id, "--json").json
    assert settled["payment"]["status"] == "settled"
    assert [event["type"] for event in settled["events"]][-1] == "payment.settled"
    assert settled["sweeps"][0]["state"] == "done"
    assert settled["transfers"][0]["counts"] is True
    assert "its money reached the treasury, final" in settled["in_words"]
    told = ctrip("payments", "show", part.id)
    assert told.code == 0
    assert "2 USDC arrived of 5 USDC; 3 USDC is missing" in told.out
    assert f"anvil was read up to block {anvil.block_number()}" in told.out
    for part_of_it in ("in words", "transfers", "refused", "events", "deliveries", "sweeps", "read"):
        assert part_of_it in told.out


def test_a_payment_that_nobody_paid_is_shown_too(ctrip: Tool, ctx: Context) -> None:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id)
    told = ctrip("payments", "show", payment.id).out
    assert "no block of anvil was ever read" in told
    assert "transfers: none" in told


def test_money_on_another_chain_is_shown_by_that_chains_blocks_and_decimals(ctrip: Tool, ctx: Context) -> None:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id, chain_id=99, chain="gone")
        cursors.start(session, 99, header(500))
        cursors.start(session, CHAIN_ID, header(20))
        native = {"token": NATIVE, "symbol": "ETH", "decimals": 18}
        store_transfer(session, payment, 10**18, 10, chain_id=CHAIN_ID, counts=False, reason="chain", **native)
        store_sweep(session, payment, new_id=ctx.new_id, chain_id=CHAIN_ID, token=NATIVE, amount=10**18)
    shown = ctrip("payments", "show", payment.id, "--json").json
    assert [transfer["confirmations"] for transfer in shown["transfers"]] == [11]
    assert [sweep["amount"] for sweep in shown["sweeps"]] == ["1 ETH"]


# --- what an operator starts again ----------------------------------------------------------------------------------


def test_a_stopped_chain_is_resumed(ctrip: Tool, ctx: Context, anvil: DevChain) -> None:
    anvil.mine(3)
    world = World(ctx, anvil)
    with ctx.sessions.begin() as session:
        cursors.stop(session, CHAIN_ID, "a deep reorg")
    ran = ctrip("chains", "resume", "anvil", "--from", str(anvil.block_number() - 1))
    assert (ran.code, ran.out) == (0, f"anvil is read on after block {anvil.block_number() - 1}\n")
    assert world.stopped_reason() is None
    (deed,) = ctrip("audit-log", "--json").json
    assert (deed["action"], deed["target"]) == ("chains.resume", "anvil")


def test_a_held_sweep_is_resumed(ctrip: Tool, ctx: Context) -> None:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id)
        mined = dict.fromkeys(("nonce", "gas_cost", "mined_tx_hash", "mined_block", "mined_block_hash"))
        held = {"state": IntentState.HELD, "held_reason": HeldReason.REPEATED_FAILURE}
        sweep_id = store_sweep(session, payment, new_id=ctx.new_id, **mined, **held)
    ran = ctrip("sweeps", "resume", sweep_id)
    assert (ran.code, ran.out) == (0, f"{sweep_id} goes on at the sweeper's next look\n")
    with ctx.sessions.begin() as session:
        assert session.scalar(sa.select(sweep_intents.c.state).where(sweep_intents.c.id == sweep_id)) == "planned"
    (deed,) = ctrip("audit-log", "--json").json
    assert (deed["action"], deed["target"]) == ("sweeps.resume", sweep_id)


# --- loops, queues, dead letters ------------------------------------------------------------------------------------


def test_loops_and_queues_are_listed(ctrip: Tool, ctx: Context, anvil: DevChain) -> None:
    assert ctrip("loops").out == "loops: none\n"
    assert ctrip("queues").out == "queues: none\n"
    World(ctx, anvil)
    listed = [row["name"] for row in ctrip("loops", "--json").json]
    assert listed == ["balances:31337", "listener:31337", "sweeper:31337"]
    assert "listener:31337" in ctrip("loops").out


# --- audit ----------------------------------------------------------------------------------------------------------


def test_the_audit_of_a_sound_database_is_clean(ctrip: Tool, ctx: Context, anvil: DevChain) -> None:
    world = World(ctx, anvil)
    paid = world.ask(ETHER)
    anvil.pay(paid.address, ETHER)
    world.live(12)
    ran = ctrip("audit")
    assert (ran.code, ran.out) == (0, "every invariant holds\n")


def test_the_audit_tells_what_does_not_hold(ctrip: Tool, ctx: Context, tmp_path: Path) -> None:
    with ctx.sessions.begin() as session:
        store_payment(session, new_id=ctx.new_id, address=b"\x66" * 20)
        assert ctx.wallet is not None
        session.execute(sa.update(deposit_addresses).values(wallet_fingerprint=ctx.wallet.fingerprint))
    log = tmp_path / "api.log"
    log.write_text("fine\nkey sk_01ARZ3NDEKTSV4RRFFQ69G5FAV_dGhpcyBpcyBhIHRlc3QgdmVjdG9yIHNlY3JldCE1234\n")
    ran = ctrip("audit", "--json", "--log", str(log))
    assert ran.code == 1
    told = {violation["invariant"][0] for violation in ran.json}
    assert {"4", "7"} <= told, ran.json
    assert "dGhpcyBpcyBh" not in ran.out
    table = ctrip("audit", "--log", str(log))
    assert table.code == 1
    assert "violations" in table.out
    assert f"{log}:2" in table.out
