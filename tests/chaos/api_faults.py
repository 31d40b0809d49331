"""Deaths of the API's processes and of Postgres, by kill -9, and how to tell that all is well again."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

import psycopg2

from ctrip.local import postgres
from tests.stack import RunningStack
from tests.waiting import wait_until

Fault = Callable[[], str]
BACK_WITHIN_S = 90
_BUSY = "SELECT pid FROM pg_stat_activity WHERE application_name = 'ctrip-api' ORDER BY state = 'active' DESC LIMIT 1"


def api_names(stack: RunningStack) -> dict[str, str]:
    """The names of the API's processes by their addresses."""
    return {url: "api" if number == 0 else f"api.{number + 1}" for number, url in enumerate(stack["apis"])}


def kill_api(stack: RunningStack, name: str, dice: Random) -> str:
    """kill -9 a process of the API: the server, the one below it that does the work, or both at once.

    Returns what was killed. It may be dead already.
    """
    master, what = stack.pids()[name], dice.choice(["server", "worker", "all"])
    with suppress(ProcessLookupError):
        if what == "all":
            os.killpg(master, signal.SIGKILL)
        for pid in [master] if what == "server" else _workers(master) if what == "worker" else []:
            os.kill(pid, signal.SIGKILL)
    return f"{name}, {what}"


def kill_backend(stack: RunningStack) -> str:
    """kill -9 a backend that serves the API: Postgres ends all others too, and recovers."""
    with closing(_connect(stack)) as witness:
        cursor = witness.cursor()
        cursor.execute(_BUSY)
        found = cursor.fetchone()
        assert found is not None, "the API has a connection"
        os.kill(found[0], signal.SIGKILL)
        wait_until(lambda: not _lives(witness), within_s=BACK_WITHIN_S, what="every backend is gone")
    wait_postgres(stack)
    return f"postgres, backend {found[0]}"


def kill_postgres(stack: RunningStack) -> str:
    """kill -9 Postgres itself, and wait until the supervisor has it back."""
    with closing(_connect(stack)) as witness:
        old_pid = stack.kill("postgres")
        wait_until(lambda: not _lives(witness), within_s=BACK_WITHIN_S, what="every backend is gone")
    stack.wait_restarted("postgres", old_pid=old_pid, within_s=BACK_WITHIN_S)
    wait_postgres(stack)
    return f"postgres, {old_pid}"


def wait_postgres(stack: RunningStack) -> None:
    url = stack["database_url"]
    wait_until(lambda: postgres.answers(url), within_s=BACK_WITHIN_S, what="Postgres is back")


def wait_serving(stack: RunningStack, name: str) -> None:
    """Wait until a process of the API answers."""
    (url,) = (url for url, each in api_names(stack).items() if each == name)
    wait_until(lambda: _told(f"{url}/livez") is not None, within_s=BACK_WITHIN_S, what=f"{name} answers")


def wait_well(stack: RunningStack) -> None:
    """Wait until every process of the API says that all is well, the reading of the chain too."""

    def told() -> list[Any]:
        return [_told(f"{url}/readyz") for url in stack["apis"]]

    def are_well() -> bool:
        return all(each is not None and each["status"] == "ok" for each in told())

    wait_until(are_well, within_s=BACK_WITHIN_S, every_s=0.2, what=lambda: f"all is well: {told()}")


def _workers(master: int) -> list[int]:
    """The processes below a server, without the one that multiprocessing keeps for itself."""
    with suppress(OSError):
        children = [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
        return [pid for pid in children if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return []


def _connect(stack: RunningStack) -> "psycopg2.extensions.connection":
    connection = psycopg2.connect(stack["database_url"])
    connection.autocommit = True
    return connection


def _lives(connection: "psycopg2.extensions.connection") -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except psycopg2.Error:
        return False
    return True


def _told(url: str) -> Any:
    """What an address answers with a 200; None where it does not."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except (urllib.error.URLError, OSError):
        return None
