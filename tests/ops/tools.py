"""Programs for the tests, Prometheus and systemd: those of the machine, or Debian's packages, unpacked below .data."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from tests.stack import ROOT

_FOLDER = ROOT / ".data" / "apt"


def find(name: str, *, packages: tuple[str, ...] = ("prometheus",)) -> Path:
    """Return a program, fetched once where the machine has none. No root is needed, nothing starts."""
    on_path = shutil.which(name)
    if on_path is not None:
        return Path(on_path)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the lanes of `make test` may both need it
        unpacked = _FOLDER / packages[0]
        if not unpacked.exists():
            _fetch(unpacked, packages)
    found = [path for path in (unpacked / "usr" / "bin" / name, unpacked / "bin" / name) if path.exists()]
    assert found, f"Debian's packages {packages} have no {name}"
    return found[0]


def _fetch(unpacked: Path, packages: tuple[str, ...]) -> None:
    assert shutil.which("apt-get") is not None, (
        f"these tests need the programs of {packages[0]} on the PATH: there is no apt-get here to fetch Debian's with"
    )
    # Lists and cache of our own: those of the machine may be empty, and belong to root.
    own = {"Dir::State::Lists": _FOLDER / "lists", "Dir::Cache": _FOLDER / "cache", "APT::Sandbox::User": "root"}
    for folder in (_FOLDER / "lists" / "partial", _FOLDER / "cache" / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    options = [word for key, value in own.items() for word in ("-o", f"{key}={value}")]
    _run(["apt-get", *options, "-qq", "update"])
    _run(["apt-get", *options, "-qq", "download", *packages])
    half = _FOLDER / "half"
    shutil.rmtree(half, ignore_errors=True)
    for name in packages:
        package = max(_FOLDER.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime)
        _run(["dpkg", "-x", str(package), str(half)])
        package.unlink()
    half.rename(unpacked)
    shutil.rmtree(_FOLDER / "lists")


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        cwd=_FOLDER,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.returncode == 0, (
        f"what is needed is not on the PATH, and fetching Debian's failed: {' '.join(command)}\n{done.stderr[-2000:]}"
    )
