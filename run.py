"""`make run` without make: `python3 run.py [demo|build]`. Standard library only; also builds the environment for make.

The environment in .venv is made from requirements-dev.txt, with hashes, and made anew only when that file changed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PINS = ROOT / "requirements-dev.txt"
STAMP = VENV / ".built-from"
LEAST = (3, 11)


def build() -> None:
    """Make .venv fit the pins. Exits with a message that says what to install where something is missing."""
    if sys.version_info < LEAST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            "cTrip needs Python 3.11 or later; this is " + found + ". Debian 12 and Ubuntu 24.04 have one\n"
            "(apt-get install python3); with make, name another: make PYTHON=python3.12 run"
        )
    wanted = hashlib.sha256(PINS.read_bytes()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        STAMP.touch()  # make compares times
        return
    if not (VENV / "bin" / "pip").exists():
        _make_venv()
    _say("installing what requirements-dev.txt lists into .venv (once; about a minute)")
    install = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    installed = subprocess.run([*install, "-r", str(PINS)], check=False)  # noqa: S603 (fixed command)
    if installed.returncode != 0:
        sys.exit("pip could not install the requirements; its words are above. The next start tries again.")
    STAMP.write_text(wanted)


def _make_venv() -> None:
    try:
        import ensurepip  # noqa: F401, PLC0415 (to ask whether it is there is the purpose)
    except ImportError:
        sys.exit(
            sys.executable + " lacks the venv module, which Debian and Ubuntu ship as a package of its own.\n"
            "Install it and start again: apt-get install python3-venv"
        )
    shutil.rmtree(VENV, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)  # noqa: S603 (fixed command)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> None:
    """Build what is missing and become the stack."""
    choices = {"build": None, "run": [], "demo": ["--demo"]}
    wish = sys.argv[1] if len(sys.argv) > 1 else "run"
    if wish not in choices or len(sys.argv) > 2:
        sys.exit("usage: python3 run.py [run|demo|build]")
    build()
    arguments = choices[wish]
    if arguments is not None:
        os.chdir(ROOT)
        os.execv(str(PYTHON), [str(PYTHON), "-m", "ctrip.local", *arguments])  # noqa: S606 (to become it is the purpose)


if __name__ == "__main__":
    main()
