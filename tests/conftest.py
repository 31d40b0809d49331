"""Real parts for the tests: an embedded Postgres and Valkey, a dev chain, and a Context on an emptied database."""

import dataclasses
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml
from redis import Redis

from ctrip.bootstrap import bootstrap
from ctrip.context import Context
from ctrip.database import schema
from ctrip.database.engine import Sessions, make_engine
from ctrip.database.logins import Login
from ctrip.database.models import merchants, metadata
from ctrip.database.roles import Group
from ctrip.domain.addresses import checksum_address
from ctrip.local import devchain
from ctrip.local.children import Program, is_ready, spawn, stop
from ctrip.local.postgres import embedded_postgres
from ctrip.local.redis import embedded_redis
from ctrip.settings import Role
from tests.devchain import ETHER, DevChain
from tests.stack import PORTS, RunningStack, is_alive
from tests.waiting import wait_until

# A shell that runs these tests in its background lets them ignore Ctrl-C, and nohup a hang-up: with them, all that they
# start would.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent

MNEMONIC = "legal winner thank year wave sausage worth useful legal winner thank yellow"
"""A test vector of BIP-39. Not the dev chain's own: its unlocked accounts would be our deposit addresses."""
XPUB = "xpub6Bh6Cg7bvjFdW6VEAaZmsyhZh86WdJ9Kr5aqqY5LN7UFLpxTrxsiys213UCu8MAYjcq5JhF7jzZXvruGfWfPbxqsByNNhwWaNQRuhP3JcC3"
GAS_KEY = "0x" + "22" * 32
GAS_WALLET = bytes.fromhex("1563915e194D8CfBA1943570603F7606A3115508")
SECRETS_KEY = "uyiwaQpTc4MMVovykFkfNjMhrZohL3BJ1ELA54TJOAg="
MERCHANT_ID = "mer_01TESTMERCHANT000000000000"
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests of the running stack come last, one after the other: it keeps a third of a core busy until the end."""
    items.sort(key=lambda item: "stack" in getattr(item, "fixturenames", ()))


@contextmanager
def running(program: Program, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a part until the block ends; its output is in `folder/NAME.log`. It dies with pytest, whatever kills that."""
    log = folder / f"{program.name}.log"
    with log.open("ab") as output:
        child = spawn(program, output=output)
        try:
            wait_until(lambda: is_ready(program), within_s=30, what=f"{program.name} is ready, see {log}")
            yield child
        finally:
            stop(child, program)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("postgres")
    program, url = embedded_postgres(folder, durable=False)
    url = url.replace("postgresql://", "postgresql+psycopg2://")
    with running(program, folder):
        _migrate(url)
        yield url


def _migrate(url: str) -> None:
    engine = make_engine(url, process="tests")
    schema.make_logins(engine, [Login(_user_of(group), group) for group in Group])
    assert schema.upgrade(engine).remarks == ()
    engine.dispose()


def _user_of(group: Group) -> str:
    return f"a_{group}_of_the_tests"


def url_of(group: Group, url: str) -> str:
    """The URL under which a member of a group connects to the session's database, for a process of its own."""
    return url.replace("//ctrip@", f"//{_user_of(group)}@")


def engine_of(group: Group, engine: sa.Engine) -> sa.Engine:
    """An engine of a member of a group, on the session's database; its owner's is `engine`."""
    return make_engine(engine.url.set(username=_user_of(group)), process="tests")  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def engine(postgres_url: str) -> Iterator[sa.Engine]:
    engine = make_engine(postgres_url, process="tests", pool_size=20)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def api_engine(engine: sa.Engine) -> Iterator[sa.Engine]:
    """What the API may do in Postgres, and no more."""
    api_engine = engine_of(Group.API, engine)
    yield api_engine
    api_engine.dispose()


@pytest.fixture
def sessions(engine: sa.Engine) -> Sessions:
    """A session factory on an emptied database."""
    empty(engine)
    return Sessions(engine)


def empty(engine: sa.Engine) -> None:
    """Delete every row."""
    # DELETE, not TRUNCATE: it makes no new files. All in one round trip: most tests begin with this.
    deletions = (f"DELETE FROM {table}" for table in reversed(metadata.sorted_tables))
    statements = ("SET LOCAL session_replication_role = replica", *deletions, "ALTER SEQUENCE deposit_index RESTART")
    with engine.begin() as connection:
        connection.exec_driver_sql("; ".join(statements))


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("valkey")
    program, url = embedded_redis(folder, port=26379 + PORTS, durable=False)
    with running(program, folder):
        yield url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[Redis]:
    """A client of an emptied Redis."""
    with Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def anvil_binary() -> Path:
    folder = ROOT / ".data" / "npm"
    binary = devchain.find_anvil(folder) or devchain.install_anvil(folder)
    assert binary is not None, f"anvil {devchain.ANVIL_VERSION} is needed by these tests, and npm to fetch it"
    return binary


@pytest.fixture(scope="session")
def anvil_node(anvil_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevChain]:
    """The session's dev chain. Tests take `anvil`, which starts each of them at the same block."""
    folder = tmp_path_factory.mktemp("anvil")
    program, url = devchain.anvil(anvil_binary, port=28545 + PORTS, block_time_s=None)
    with running(program, folder):
        node = DevChain(url)
        # Its first blocks are of long ago for every test, and not for the later ones of a long session alone.
        node.set_time(time.time() - 1200)
        yield node


@pytest.fixture(scope="session")
def usdc(anvil_node: DevChain) -> bytes:
    """The test token; the faucet holds a million of it."""
    return anvil_node.deploy_token()


@pytest.fixture
def anvil(anvil_node: DevChain, usdc: bytes) -> Iterator[DevChain]:
    """The dev chain with the test token, mining nothing by itself; what a test does to it is undone after it."""
    snapshot = anvil_node.snapshot()
    anvil_node.set_time(time.time())  # going back to a snapshot also turned its clock back
    yield anvil_node
    anvil_node.mine_every(0)
    anvil_node.automine(False)
    anvil_node.drop_pool()
    anvil_node.revert(snapshot)


@pytest.fixture(scope="session")
def owners_environment(
    postgres_url: str, redis_url: str, anvil_node: DevChain, usdc: bytes, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The environment of every process of a small cTrip on the session's parts; its gas wallet holds 100 ETH.

    It connects as the owner, who may prepare any row. Tests take `environment`.
    """
    anvil_node.set_balance(GAS_WALLET, 100 * ETHER)
    chains_file = tmp_path_factory.mktemp("settings") / "chains.yaml"
    chain = {
        "name": "anvil",
        "chain_id": devchain.CHAIN_ID,
        "rpc_urls": [anvil_node.url],
        "native": {"symbol": "ETH", "decimals": 18, "rates": rate_names("ETH", "ethereum")},
        "confirmations": 3,
        "reorg_window": 64,
        "poll_seconds": 0.5,
        "treasury": checksum_address(anvil_node.treasury),
        "sweep": {"max_fee_gwei": 200},
        "tokens": [
            {
                "symbol": "USDC",
                "address": checksum_address(usdc),
                "decimals": 6,
                "rates": rate_names("USDC", "usd-coin"),
            }
        ],
    }
    chains_file.write_text(yaml.safe_dump({"chains": [chain]}))
    return {
        "ENV": "test",
        "DATABASE_URL": postgres_url.replace("+psycopg2", ""),
        "REDIS_URL": redis_url,
        "CHAINS_FILE": str(chains_file),
        "WALLET_XPUB": XPUB,
        "WALLET_MNEMONIC": MNEMONIC,
        "GAS_KEY": GAS_KEY,
        "SECRETS_KEY": SECRETS_KEY,
        "WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8,::1/128",
        "RATE_SOURCES": "static",
        "STATIC_RATES": "ETH/EUR=2990,ETH/USD=3250,USDC/EUR=0.92,USDC/USD=1",
    }


def rate_names(code: str, coin: str) -> dict[str, str]:
    """The names by which every source of rates knows an asset."""
    return {"static": code, "kraken": code, "coingecko": coin}


@pytest.fixture(scope="session")
def environment(owners_environment: dict[str, str]) -> dict[str, str]:
    """The environment of processes that tests run."""
    return owners_environment


@pytest.fixture(scope="session")
def whole_context(owners_environment: dict[str, str]) -> Iterator[Context]:
    """What no process holds: the parts of all roles at once. Tests take `ctx`."""
    roles = (Role.SWEEPER, Role.WEBHOOK, Role.API)
    signing, posting, serving = (bootstrap(role, owners_environment) for role in roles)
    settings = dataclasses.replace(
        signing.settings,
        secrets_keys=posting.settings.secrets_keys,
        webhook_allow_cidrs=posting.settings.webhook_allow_cidrs,
    )
    yield dataclasses.replace(signing, settings=settings, box=posting.box, poster=posting.poster)
    for built in (signing, posting, serving):
        built.sessions.engine.dispose()


@pytest.fixture
def ctx(whole_context: Context, sessions: Sessions, anvil: DevChain) -> Context:
    """A Context that may do everything, on an emptied database that has one merchant, and the dev chain."""
    ctx = dataclasses.replace(whole_context, sessions=sessions)
    assert ctx.box is not None
    secret = ctx.box.encrypt(WEBHOOK_SECRET.encode())
    with sessions.begin() as session:
        session.execute(merchants.insert().values(id=MERCHANT_ID, name="A shop", webhook_secret=secret))
    return ctx


@pytest.fixture
def merchant_id(ctx: Context) -> str:
    """The merchant of `ctx`; its webhook secret is WEBHOOK_SECRET."""
    return MERCHANT_ID


@pytest.fixture(scope="session")
def stack(anvil_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """All of cTrip, as `make run` starts it, with a block each second and webhooks tried again within seconds.

    Tests share it: each makes its own payments, and leaves all processes running.
    """
    folder = tmp_path_factory.mktemp("stack") / "data"
    stack = RunningStack(folder, NO_DEMO="1", WEBHOOK_RETRY_SCHEDULE="0,1,1,2,3,5,8,13,21,34")
    stack.start()
    try:
        stack.wait_ready()
        yield stack
    finally:
        below = list(stack.family())
        exit_code = stack.stop()
    assert exit_code == 0
    assert not any(is_alive(pid) for pid in below)
    assert not (folder / "stack.json").exists()
