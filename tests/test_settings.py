"""Settings: what each role reads, and one message for all that is wrong, without a secret in it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctrip.domain.addresses import NATIVE
from ctrip.domain.finality import Finality, FinalityRule, Tier
from ctrip.domain.quotas import Quota, QuotaOf
from ctrip.errors import MisconfiguredError
from ctrip.settings import QUOTAS, RETRY_GAPS_S, Role, Settings, load_settings, read_mnemonic
from ctrip.settings.chains import dev_chain, read_chains
from tests.conftest import GAS_KEY, MNEMONIC, ROOT, SECRETS_KEY, XPUB

PASSWORD = "correct-horse"
TREASURY = "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720"
USDC = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"
EVERYTHING = {
    "ENV": "test",
    "DATABASE_URL": f"postgresql://ctrip:{PASSWORD}@db:5433/ctrip",
    "REDIS_URL": "redis://:redis-word@cache:6380/1",
    "CHAINS_FILE": str(ROOT / "chains.yaml"),
    "WALLET_XPUB": XPUB,
    "WALLET_MNEMONIC": MNEMONIC,
    "GAS_KEY": GAS_KEY,
    "SECRETS_KEY": SECRETS_KEY,
    "PUBLIC_URL": "https://pay.example/",
    "TRUSTED_PROXIES": "1",
    "RATE_LIMIT_PER_KEY": "100/second",
    "RATE_LIMIT_PER_ADDRESS": "off",
    "CORS_ORIGINS": "https://shop.example, http://127.0.0.1:3000",
    "MAX_OPEN_PAYMENTS": "500",
    "WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8, fd00::/8",
    "WEBHOOK_RETRY_SCHEDULE": "0,5,60",
    "SMTP_URL": "smtp://mail:smtp-word%40@mail",
    "MAIL_FROM": "A shop <shop@example.com>",
    "OPERATOR_EMAIL": "operator@example.com",
    "COINGECKO_API_KEY": "CG-key-word",
    "METRICS_PORT": "9100",
}
SECRETS = (PASSWORD, "redis-word", XPUB, MNEMONIC, GAS_KEY, SECRETS_KEY, "smtp-word%40", "smtp-word@", "CG-key-word")


def load(role: Role = Role.API, **changes: str | None) -> Settings:
    """Settings of a role from a whole environment with changes; None takes a variable away."""
    return load_settings(role, {k: v for k, v in (EVERYTHING | changes).items() if v is not None})


def refusal(role: Role = Role.API, **changes: str | None) -> str:
    with pytest.raises(MisconfiguredError) as refused:
        load(role, **changes)
    assert not [secret for secret in SECRETS if secret in refused.value.detail]
    return refused.value.detail


# --- who reads what -------------------------------------------------------------------------------------------------

HELD = {
    Role.API: {"wallet_xpub", "secrets_keys", "trusted_proxies", "quotas", "cors_origins", "webhook_allow_cidrs"},
    Role.LISTENER: set(),
    Role.SWEEPER: {"wallet_xpub", "wallet_mnemonic", "gas_key"},
    Role.WEBHOOK: {"secrets_keys", "webhook_allow_cidrs"},
    Role.EMAIL: {"smtp_url", "operator_email"},
    Role.SCHEDULER: set(),
    Role.CLI: {"wallet_xpub", "secrets_keys"},
}
PRIVATE = set[str]().union(*HELD.values())


@pytest.mark.parametrize("role", Role)
def test_a_role_holds_only_what_it_may(role: Role) -> None:
    settings = load(role)
    assert {name for name in PRIVATE if getattr(settings, name)} == HELD[role]


def test_what_every_role_reads_is_read() -> None:
    settings = load(Role.LISTENER)
    assert settings.database_url == f"postgresql+psycopg2://ctrip:{PASSWORD}@db:5433/ctrip"
    assert settings.database_place == "db:5433/ctrip"
    assert settings.redis_url == EVERYTHING["REDIS_URL"]
    assert settings.metrics_port == 9100
    assert settings.webhook_gaps_s == (0, 5, 60)
    assert settings.chain(31337) is settings.chain_named("anvil") is settings.chains[0]
    assert settings.chain(1) is settings.chain_named("ethereum") is None


def test_quotas_and_origins_are_read() -> None:
    settings = load(Role.API)
    assert settings.quotas == {QuotaOf.KEY: Quota(100, 1)}
    assert settings.cors_origins == ("https://shop.example", "http://127.0.0.1:3000")
    assert load(Role.API, RATE_LIMIT_PER_KEY=None, RATE_LIMIT_PER_ADDRESS=None).quotas == QUOTAS
    assert (settings.max_open_payments, load(Role.LISTENER).max_open_payments) == (500, 100_000)


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    settings = load(Role.API, ENV="", LOG_LEVEL="", PUBLIC_URL="", WEBHOOK_ALLOW_CIDRS="", WEBHOOK_RETRY_SCHEDULE="")
    assert (settings.env, settings.log_level) == ("development", "INFO")
    assert settings.webhook_allow_cidrs == ()
    assert settings.webhook_gaps_s == RETRY_GAPS_S


def test_the_settings_show_no_secret() -> None:
    for role in Role:
        shown = repr(load(role))
        assert not [secret for secret in SECRETS if secret in shown], role


def test_every_secret_is_told_to_the_logs() -> None:
    held = set[str]().union(*(load(role).secrets() for role in Role))
    assert set(SECRETS) <= held


def test_the_key_in_a_nodes_url_is_told_to_the_logs(tmp_path: Path) -> None:
    path = chains_file(tmp_path, rpc_urls=["https://me:node-word@node.example/v3/node-key?token=node-token"])
    assert {"node-word", "v3/node-key", "token=node-token"} <= set(load(CHAINS_FILE=path).secrets())


# --- faults ---------------------------------------------------------------------------------------------------------

BAD_QUOTAS = ("0/minute", "100", "100/day", "-1/minute", "1e3/minute", "100/", "/minute", "none")
BAD_ORIGINS = (
    "*",
    "shop.example",
    "https://shop.example/",
    "https://shop.example:443",
    "https://Shop.example",
    "https://me@shop.example",
    "https://shop.example:port",
)
FAULTS: list[tuple[Role, str, str | None, str]] = [
    (Role.API, "DATABASE_URL", None, "it is postgresql://user:password@host:port/name"),
    (Role.API, "DATABASE_URL", f"mysql://ctrip:{PASSWORD}@db/ctrip", "it is postgresql://"),
    (Role.API, "DATABASE_URL", f"postgresql://ctrip:{PASSWORD}@db", "it is postgresql://"),
    (Role.API, "DATABASE_URL", f"postgresql://ctrip:a@{PASSWORD}@db/ctrip", "percent-encoded"),
    (Role.API, "DATABASE_URL", f"postgresql://ctrip:a/{PASSWORD}@db/ctrip", "percent-encoded"),
    (Role.API, "DATABASE_URL", f"postgresql://ctrip:a:{PASSWORD}@db/ctrip", "percent-encoded"),
    (Role.API, "DATABASE_URL", f"postgresql://ctrip:{PASSWORD}@db:port/ctrip", "it is postgresql://"),
    (Role.API, "REDIS_URL", "http://:redis-word@cache", "it is redis://"),
    (Role.API, "REDIS_URL", "redis://:redis-word@cache:port", "it is redis://"),
    (Role.API, "REDIS_URL", "redis://cache/first", "it is redis://"),
    (Role.API, "ENV", "prod", "'prod' is wrong; it is one of development, production, test"),
    (Role.API, "LOG_LEVEL", "debug", "it is one of DEBUG, INFO"),
    (Role.API, "WALLET_XPUB", None, "is missing; it is the account's extended public key"),
    (Role.SWEEPER, "WALLET_XPUB", None, "is missing"),
    (Role.SWEEPER, "WALLET_MNEMONIC", None, "is missing; it is the wallet's seed phrase"),
    (Role.SWEEPER, "GAS_KEY", None, "is missing; it is the private key"),
    (Role.API, "SECRETS_KEY", None, "is missing; it is one or more comma-separated keys"),
    (Role.WEBHOOK, "SECRETS_KEY", None, "is missing"),
    (Role.WEBHOOK, "SECRETS_KEY", "short", "its value is wrong"),
    (Role.WEBHOOK, "SECRETS_KEY", f"{SECRETS_KEY},short", "its value is wrong"),
    (Role.WEBHOOK, "SECRETS_KEY", SECRETS_KEY.replace("-", "%").replace("u", "ü"), "its value is wrong"),
    (Role.WEBHOOK, "SECRETS_KEY", ",", "its value is wrong"),
    (Role.API, "PUBLIC_URL", "pay.example", "it is the http(s) address"),
    (Role.API, "PUBLIC_URL", "https://me:word@pay.example", "it is the http(s) address"),
    (Role.API, "TRUSTED_PROXIES", "-1", "it is a whole number"),
    (Role.SCHEDULER, "DEAD_LETTERS_KEPT_DAYS", "36501", "it is a whole number of days"),
    (Role.API, "TRUSTED_PROXIES", "\uff11", "it is a whole number"),
    *((Role.API, "RATE_LIMIT_PER_KEY", value, "it is 6000/minute, or another") for value in BAD_QUOTAS),
    *((Role.API, "CORS_ORIGINS", value, "it is a comma-separated list of origins") for value in BAD_ORIGINS),
    (Role.API, "WEBHOOK_ALLOW_CIDRS", "127.0.0.1/8", "it is a comma-separated list of networks"),
    (Role.API, "WEBHOOK_ALLOW_CIDRS", "everywhere", "it is a comma-separated list of networks"),
    (Role.WEBHOOK, "WEBHOOK_RETRY_SCHEDULE", "0,soon", "it is a comma-separated list of 1 to 20 gaps"),
    (Role.WEBHOOK, "WEBHOOK_RETRY_SCHEDULE", ",".join("1" * 21), "1 to 20 gaps"),
    (Role.WEBHOOK, "WEBHOOK_RETRY_SCHEDULE", "604801", "1 to 20 gaps"),
    (Role.EMAIL, "SMTP_URL", "https://mail:smtp-word@mail", "its value is wrong; it is smtp://"),
    (Role.EMAIL, "SMTP_URL", "smtp://mail@mail", "its value is wrong; it is smtp://"),
    (Role.EMAIL, "SMTP_URL", "smtp://mail:smtp-word@@mail", "percent-encoded"),
    (Role.EMAIL, "SMTP_URL", "smtp://mail:smtp-wörd@mail", "in ASCII"),
    (Role.EMAIL, "MAIL_FROM", None, "is missing; it is an e-mail address, or A Shop <shop@example.com>"),
    (Role.EMAIL, "MAIL_FROM", "A shop", "'A shop' is wrong; it is an e-mail address"),
    (Role.EMAIL, "OPERATOR_EMAIL", "operator", "'operator' is wrong; it is an e-mail address"),
    (Role.API, "METRICS_PORT", "65536", "it is a port"),
    (Role.API, "CHAINS_FILE", "/nowhere/chains.yaml", "cannot read /nowhere/chains.yaml"),
]


@pytest.mark.parametrize(("role", "name", "value", "words"), FAULTS)
def test_a_fault_is_named_with_what_would_be_right(role: Role, name: str, value: str | None, words: str) -> None:
    message = refusal(role, **{name: value})
    assert re.search(rf"^  - {name}: .*{re.escape(words)}", message, re.MULTILINE), message
    assert message.count("\n  - ") == 1, "one fault, and it is told once"


def test_all_faults_are_told_at_once() -> None:
    message = refusal(Role.SWEEPER, DATABASE_URL=None, WALLET_XPUB=None, GAS_KEY=None, LOG_LEVEL="loud")
    assert re.findall(r"^  - ([A-Z_]+):", message, re.MULTILINE) == [
        "LOG_LEVEL",
        "DATABASE_URL",
        "WALLET_XPUB",
        "GAS_KEY",
    ]


def test_the_tool_for_operators_needs_no_wallet_and_no_secrets_key() -> None:
    settings = load(Role.CLI, WALLET_XPUB=None, SECRETS_KEY=None, LOG_LEVEL=None)
    assert (settings.wallet_xpub, settings.secrets_keys, settings.log_level) == (None, (), "WARNING")


# --- secrets from files ---------------------------------------------------------------------------------------------


def test_without_a_mail_server_nobody_need_write_in_our_name() -> None:
    settings = load(Role.EMAIL, SMTP_URL=None, MAIL_FROM=None, OPERATOR_EMAIL=None)
    assert (settings.smtp_url, settings.mail_from, settings.operator_email) == (None, None, None)
    assert load(Role.WEBHOOK, MAIL_FROM=None).smtp_url is None, "who sends no mail is not asked for its sender"


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "xpub").write_text(f"{XPUB}\n")
    (tmp_path / "phrase").write_text(MNEMONIC.replace(" ", "\n"))
    settings = load(
        Role.SWEEPER,
        WALLET_XPUB=None,
        WALLET_XPUB_FILE=str(tmp_path / "xpub"),
        WALLET_MNEMONIC=None,
        WALLET_MNEMONIC_FILE=str(tmp_path / "phrase"),
    )
    assert settings.wallet_xpub == XPUB
    assert settings.wallet_mnemonic == MNEMONIC
    assert read_mnemonic({"WALLET_MNEMONIC_FILE": str(tmp_path / "phrase")}) == MNEMONIC


FILE_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "that is not there": (lambda _path: None, "cannot read"),
    "that is a folder": (lambda path: path.mkdir(), "cannot read"),
    "that is empty": (lambda path: path.write_text("\n"), "is empty"),
    "that is no text": (lambda path: path.write_bytes(b"\xff\xfe\xfd"), "no text in UTF-8"),
    "that is huge": (lambda path: path.write_text("x" * 100_000), "is larger than"),
}


@pytest.mark.parametrize(("make", "words"), FILE_FAULTS.values(), ids=FILE_FAULTS.keys())
def test_a_secrets_file_is_refused(make: Callable[[Path], Any], words: str, tmp_path: Path) -> None:
    make(tmp_path / "key")
    message = refusal(SECRETS_KEY=None, SECRETS_KEY_FILE=str(tmp_path / "key"))
    assert re.search(rf"^  - SECRETS_KEY_FILE: .*{words}", message, re.MULTILINE), message
    assert message.count("\n  - ") == 1


def test_a_secret_that_is_set_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRETS_KEY)
    assert "SECRETS_KEY: is set beside SECRETS_KEY_FILE" in refusal(SECRETS_KEY_FILE=str(tmp_path / "key"))


def test_what_is_no_secret_has_no_file_form(tmp_path: Path) -> None:
    (tmp_path / "level").write_text("DEBUG")
    assert load(LOG_LEVEL_FILE=str(tmp_path / "level")).log_level == "INFO"


# --- production -----------------------------------------------------------------------------------------------------


def test_private_ranges_are_opened_in_production_only_by_two_settings() -> None:
    assert "WEBHOOK_ALLOW_CIDRS_IN_PRODUCTION=yes" in refusal(Role.WEBHOOK, ENV="production")
    opened = load(Role.WEBHOOK, ENV="production", WEBHOOK_ALLOW_CIDRS_IN_PRODUCTION="yes")
    assert [str(network) for network in opened.webhook_allow_cidrs] == ["127.0.0.0/8", "fd00::/8"]


def test_the_dev_chain_stands_in_for_a_missing_file_in_development_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(ENV="development", CHAINS_FILE=None).chains == (dev_chain(),)
    for mode in ("production", "test"):
        assert "CHAINS_FILE: cannot read chains.yaml" in refusal(ENV=mode, CHAINS_FILE=None, WEBHOOK_ALLOW_CIDRS=None)
    assert "cannot read elsewhere.yaml" in refusal(ENV="development", CHAINS_FILE="elsewhere.yaml")
    (tmp_path / "chains.yaml").write_text("chains: []")
    assert "CHAINS_FILE" in refusal(ENV="development", CHAINS_FILE=None), "an invalid file falls back to nothing"


def test_a_dot_env_file_is_read_in_development_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in EVERYTHING | {"DATABASE_URL_FILE": ""}:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text(
        f"# a comment\nexport DATABASE_URL='{EVERYTHING['DATABASE_URL']}'\nLOG_LEVEL=DEBUG\nnonsense\n"
    )
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    settings = load_settings(Role.SCHEDULER)
    assert settings.database_place == "db:5433/ctrip"
    assert settings.log_level == "ERROR", "the environment goes before the file"
    monkeypatch.setenv("ENV", "production")
    with pytest.raises(MisconfiguredError, match="DATABASE_URL: is missing"):
        load_settings(Role.SCHEDULER)


# --- chains.yaml ----------------------------------------------------------------------------------------------------


def row(**changes: Any) -> dict[str, Any]:
    """A row as people write it; None takes a key away."""
    token = {"symbol": "USDC", "address": USDC, "decimals": 6, "threshold": "1.5"}
    written = {
        "name": "ethereum",
        "chain_id": 1,
        "rpc_urls": ["https://node.example"],
        "native": {"symbol": "ETH", "decimals": 18},
        "confirmations": 12,
        "treasury": TREASURY,
        "sweep": {"max_fee_gwei": 0.25, "threshold": "0.001"},
        "tokens": [token],
    }
    return {key: value for key, value in (written | changes).items() if value is not None}


def chains_file(folder: Path, *others: dict[str, Any], **changes: Any) -> str:
    """A chains file whose first row has changes."""
    path = folder / "chains.yaml"
    path.write_text(yaml.safe_dump({"chains": [row(**changes), *others]}))
    return str(path)


def test_a_row_becomes_a_chain(tmp_path: Path) -> None:
    (chain,) = read_chains(Path(chains_file(tmp_path)))
    assert (chain.name, chain.chain_id, chain.enabled) == ("ethereum", 1, True)
    assert (chain.confirmations, chain.reorg_window, chain.poll.total_seconds()) == (12, 64, 1)
    assert chain.treasury == bytes.fromhex(TREASURY[2:])
    assert chain.sweep.max_fee == 250_000_000
    assert [(token.symbol, token.address, token.threshold) for token in chain.tokens] == [
        ("ETH", NATIVE, 10**15),
        ("USDC", bytes.fromhex(USDC[2:]), 1_500_000),
    ]


def test_tiers_are_of_the_units_of_each_asset_unless_a_token_has_its_own(tmp_path: Path) -> None:
    own = token(symbol="USDT", address="0x" + "77" * 20, tiers=[{"above": "5", "confirmations": 20}])
    of_all = [{"above": "1000", "finality": "finalized"}, {"above": "5000", "confirmations": 30}]
    path = chains_file(tmp_path, finality="safe", tiers=of_all, tokens=[*token(), *own])
    (chain,) = read_chains(Path(path))
    sure, surer = FinalityRule(Finality.FINALIZED, 12), FinalityRule(Finality.FINALIZED, 30)
    assert {token.symbol: token.tiers for token in chain.tokens} == {
        "ETH": (Tier(1000 * 10**18, sure), Tier(5000 * 10**18, surer)),
        "USDC": (Tier(1000 * 10**6, sure), Tier(5000 * 10**6, surer)),
        "USDT": (Tier(5 * 10**6, FinalityRule(Finality.SAFE, 20)),),
    }
    assert chain.rule == FinalityRule(Finality.SAFE, 12)


def test_one_host_may_stand_in_the_list_with_several_keys(tmp_path: Path) -> None:
    urls = ("https://node/one", "https://node/two", "http://node/one", "https://node/one?key=1", "https://me@node/one")
    (chain,) = read_chains(Path(chains_file(tmp_path, rpc_urls=list(urls))))
    assert chain.rpc_urls == urls


def test_one_rpc_url_is_a_list_of_one(tmp_path: Path) -> None:
    (chain,) = read_chains(Path(chains_file(tmp_path, rpc_urls=None, rpc_url="http://node:8545")))
    assert chain.rpc_urls == ("http://node:8545",)


def token(**changes: Any) -> list[dict[str, Any]]:
    return [{"symbol": "USDC", "address": USDC, "decimals": 6} | changes]


def tiers(*above: str) -> list[dict[str, Any]]:
    return [{"above": amount, "finality": "safe"} for amount in above]


ROW_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"treasury": None}, "chains[0] (ethereum).treasury is missing; it is the address that sweeps pay to"),
    ({"treasury": int(TREASURY, 16)}, "chains[0] (ethereum).treasury is not in quotes"),
    ({"treasury": TREASURY[:-1]}, "chains[0] (ethereum).treasury"),
    ({"treasury": TREASURY.replace("a0Ee", "A0ee")}, "wrong checksum"),
    ({"treasury": "0x" + "00" * 20}, "money sent there is lost"),
    ({"treasury": USDC}, "money sent there is lost"),
    ({"chain_id": "1"}, "chains[0] (ethereum).chain_id should be a valid integer; it is the EIP-155 id"),
    ({"chain_id": 0}, "chains[0] (ethereum).chain_id"),
    ({"chain_id": True}, "chains[0] (ethereum).chain_id"),
    ({"name": "Ethereum Mainnet"}, "chains[0] (Ethereum Mainnet).name is of the wrong form; it is 1 to 32 of a-z"),
    ({"enabled": "no"}, "chains[0] (ethereum).enabled"),
    ({"confirmation": 3}, "chains[0] (ethereum).confirmation is no known key"),
    ({"confirmations": 0}, "chains[0] (ethereum).confirmations"),
    ({"confirmations": 65}, "reorg_window 64 is smaller than confirmations 65"),
    ({"reorg_window": 5000}, "chains[0] (ethereum).reorg_window"),
    ({"finality": "sure"}, "chains[0] (ethereum).finality should be 'confirmations', 'safe' or 'finalized'"),
    ({"tiers": [{"above": 1000, "finality": "safe"}]}, "chains[0] (ethereum).tiers[0].above is not in quotes"),
    ({"tiers": [{"above": "1000"}]}, "chains[0] (ethereum).tiers[0] needs finality or confirmations"),
    ({"tiers": [{"above": "x", "finality": "safe"}]}, "tiers of ETH: "),
    ({"tiers": [{"above": "0.0000001", "finality": "safe"}]}, "tiers of USDC: "),  # it has 6 digits
    ({"tiers": tiers("1000", "500")}, "tiers of ETH: the one above 500 comes after one that begins no lower"),
    ({"tiers": tiers("1000", "1000.0")}, "tiers of ETH: the one above 1000.0 comes after one that begins no lower"),
    ({"tiers": [{"above": "1", "confirmations": 11}]}, "tiers of ETH: the one above 1 asks for less"),
    ({"tiers": [{"above": "1", "confirmations": 65}]}, "asks for more confirmations than reorg_window 64"),
    ({"finality": "finalized", "tiers": tiers("1")}, "asks for less than the one before it, or the chain"),
    ({"tokens": token(tiers=[{"above": "1", "confirmations": 3}])}, "tiers of USDC: the one above 1 asks for less"),
    ({"poll_seconds": 0}, "chains[0] (ethereum).poll_seconds"),
    ({"rpc_urls": None}, "needs rpc_urls"),
    ({"rpc_urls": []}, "needs rpc_urls"),
    ({"rpc_url": "http://node"}, "needs rpc_urls"),
    ({"rpc_urls": ["ftp://node/SECRET"]}, "chains[0] (ethereum).rpc_urls[0] is no http or https address"),
    ({"rpc_urls": ["https://node:port/SECRET"]}, "chains[0] (ethereum).rpc_urls[0]"),
    ({"rpc_urls": ["https:///SECRET"]}, "chains[0] (ethereum).rpc_urls[0] is no http or https address"),
    ({"rpc_urls": ["https://node", "SECRET"]}, "chains[0] (ethereum).rpc_urls[1] is no http or https address"),
    ({"rpc_urls": ["https://node/SECRET", "http://b", "https://NODE:443/SECRET"]}, "rpc_urls has one address twice"),
    ({"ws_urls": ["wss://node", "wss://node/"]}, "ws_urls has one address twice"),
    ({"ws_urls": ["https://node/SECRET"]}, "chains[0] (ethereum).ws_urls[0] is no ws or wss address"),
    ({"native": {"symbol": "ETH"}}, "chains[0] (ethereum).native.decimals is missing; it is the digits"),
    ({"sweep": {}}, "chains[0] (ethereum).sweep.max_fee_gwei is missing; it is the most that a unit of gas may cost"),
    ({"sweep": {"max_fee_gwei": 0}}, "chains[0] (ethereum).sweep.max_fee_gwei"),
    ({"sweep": {"max_fee_gwei": 1e-10}}, "chains[0] (ethereum).sweep.max_fee_gwei"),
    ({"sweep": {"max_fee_gwei": float("nan")}}, "chains[0] (ethereum).sweep.max_fee_gwei"),
    ({"sweep": {"max_fee_gwei": 1, "threshold": 0.1}}, "sweep.threshold is not in quotes"),
    ({"sweep": {"max_fee_gwei": 1, "threshold": "0." + "0" * 18 + "1"}}, "threshold: "),
    ({"sweep": {"max_fee_gwei": 1, "threshold": "..."}}, "threshold: "),
    ({"tokens": token(threshold="1.2345678")}, "chains[0] (ethereum).tokens[0] (USDC) threshold: "),
    ({"tokens": token(threshold="-1")}, "chains[0] (ethereum).tokens[0] (USDC) threshold: "),
    ({"tokens": token(address="not-an-address")}, "chains[0] (ethereum).tokens[0] (USDC).address"),
    ({"tokens": token(decimals=37)}, "chains[0] (ethereum).tokens[0] (USDC).decimals"),
    ({"tokens": token(symbol="US DC")}, "tokens[0] (US DC).symbol is of the wrong form"),
    ({"tokens": token(symbol="eth")}, "two assets share an address or a symbol"),
    ({"tokens": token() + token(symbol="USDT")}, "two assets share an address or a symbol"),
    ({"tokens": token(address="0x" + "00" * 20)}, "a token has the zero address"),
]


@pytest.mark.parametrize(("changes", "words"), ROW_FAULTS)
def test_a_faulty_row_is_refused_with_its_place(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    message = refusal(CHAINS_FILE=chains_file(tmp_path, **changes))
    assert f"  - CHAINS_FILE: {tmp_path}/chains.yaml:" in message
    assert words in message
    assert "SECRET" not in message


@pytest.mark.parametrize("twin", [{"name": "other"}, {"chain_id": 2}], ids=["one id twice", "one name twice"])
def test_two_chains_differ_in_name_and_id(twin: dict[str, Any], tmp_path: Path) -> None:
    assert "two chains share a name or a chain_id" in refusal(CHAINS_FILE=chains_file(tmp_path, row(**twin)))


TEXT_FAULTS: dict[str, tuple[bytes, str]] = {
    "no YAML": (b"chains:\n  - name: a\n  rpc: [https://node/SECRET\n", "is no YAML: line 3"),
    "a key that stands twice": (
        b"chains:\n  - {name: a, treasury: SECRET, treasury: SECRET}\n",
        "'treasury' stands twice",
    ),
    "an object of Python": (b"chains: !!python/object/apply:os.system [SECRET]\n", "is no YAML"),
    "a bell": (b"chains: \x07", "is no YAML"),
    "no UTF-8": (b"\xff\xfe\x00", "is no text in UTF-8"),
    "a list": (b"- name: SECRET\n", "the file is no mapping of keys to values"),
    "nothing": (b"", "the file is no mapping of keys to values"),
    "no chains": (b"chains: []\n", "chains List should have at least 1 item"),
    "a row that is a text": (b"chains: [SECRET]\n", "chains[0] is no mapping of keys to values"),
}


@pytest.mark.parametrize(("content", "words"), TEXT_FAULTS.values(), ids=TEXT_FAULTS.keys())
def test_a_file_that_is_no_list_of_rows_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "chains.yaml"
    path.write_bytes(content)
    message = refusal(CHAINS_FILE=str(path))
    assert words in message
    assert "SECRET" not in message


def test_many_faults_are_cut_to_twenty(tmp_path: Path) -> None:
    tokens = [{"symbol": f"T{n}", "address": "bad", "decimals": 6} for n in range(50)]
    message = refusal(CHAINS_FILE=chains_file(tmp_path, tokens=tokens))
    assert message.count("tokens[") == 20
    assert "and 30 more" in message


def test_the_shipped_file_is_valid_with_every_row_that_it_shows(tmp_path: Path) -> None:
    assert [chain.name for chain in read_chains(ROOT / "chains.yaml")] == ["anvil"]
    shown = (ROOT / "chains.yaml").read_text()
    path = tmp_path / "chains.yaml"
    path.write_text(re.sub(r"^#  ", "  ", shown, flags=re.MULTILINE).replace('"0x…"', f'"{TREASURY}"'))
    assert [chain.name for chain in read_chains(path)] == ["anvil", "ethereum", "polygon", "bsc"]
