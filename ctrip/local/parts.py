"""The three foundations of a stack: each embedded, or the caller's own where a URL names it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from ctrip.database.logins import Login
from ctrip.database.roles import Group
from ctrip.errors import MisconfiguredError
from ctrip.local import devchain, postgres, redis
from ctrip.local.children import Program
from ctrip.local.console import Console
from ctrip.local.options import ROOT, Options

USERS = {Group.API: "api", Group.WORKER: "worker"}
"""Who the processes of each group are to the embedded Postgres."""
NPM_FOLDER = ROOT / ".data" / "npm"


@dataclass(frozen=True)
class Parts:
    """How to run the embedded ones, where each is, and the folder that their data are in.

    `logins` are the users of the embedded Postgres that processes connect as, besides its owner, who is in
    `database_url`. A Postgres of the caller's has none: all connect as the caller does.
    """

    programs: tuple[Program, ...]
    folder: Path
    database_url: str
    logins: tuple[Login, ...]
    redis_url: str
    chain_rpc: str


def choose_parts(options: Options, console: Console) -> Parts:
    """Decide on each part, fetch what is missing, make the database cluster. Raises MisconfiguredError."""
    chain, chain_rpc, folder = _chain(options, console)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    database, database_url = _database(options, folder)
    broker, redis_url = _redis(options, folder)
    programs = tuple(program for program in (database, broker, chain) if program is not None)
    logins = () if database is None else tuple(Login(user, group) for group, user in USERS.items())
    return Parts(programs, folder, database_url, logins, redis_url, chain_rpc)


def _chain(options: Options, console: Console) -> tuple[Program | None, str, Path]:
    if options.chain_rpc is not None:
        return None, options.chain_rpc, options.data_dir
    binary = devchain.find_anvil(NPM_FOLDER) if options.npm else None
    if binary is None and options.npm:
        console.say(f"  fetching anvil {devchain.ANVIL_VERSION} with npm (once)")
        binary = devchain.install_anvil(NPM_FOLDER)
    if binary is not None:
        program, url = devchain.anvil(
            binary, block_time_s=options.block_time_s, state=options.data_dir / "anvil.json", port=options.chain_port
        )
        return program, url, options.data_dir
    # What was read of a chain that is gone is worth nothing: database and broker begin anew with it.
    folder = options.data_dir / "memory-only"
    shutil.rmtree(folder, ignore_errors=True)
    console.say(
        "  no anvil: the dev chain is py-evm. It lives in memory only, so each start begins with an empty chain and\n"
        "  database, and it makes no reorgs. With npm installed, the next start fetches anvil."
    )
    program, url = devchain.py_evm(block_time_s=options.block_time_s, port=options.chain_port)
    return program, url, folder


def _database(options: Options, folder: Path) -> tuple[Program | None, str]:
    if options.database_url is None:
        return postgres.embedded_postgres(folder / "postgres")
    url = options.database_url.replace("postgresql+psycopg2://", "postgresql://", 1)
    if not postgres.answers(url):
        raise MisconfiguredError("DATABASE_URL: no Postgres answers there; unset it to have one started here")
    return None, url


def _redis(options: Options, folder: Path) -> tuple[Program | None, str]:
    if options.redis_url is None:
        return redis.embedded_redis(folder / "valkey", port=options.redis_port)
    if not redis.answers(options.redis_url):
        raise MisconfiguredError("REDIS_URL: no Redis answers there; unset it to have one started here")
    return None, options.redis_url
