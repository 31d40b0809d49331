"""ops/systemd without systemd as the first process: each unit's command as it is written there, on this machine.

What an installation has of its own is mapped to something here: the folder of the program, the one file of settings,
the credentials, and the ports. Nothing else is changed.
"""

import os
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.ops import tools
from tests.stack import ROOT

FOLDER = ROOT / "ops" / "systemd"
TEMPLATE = "ctrip-worker@.service"
_PROGRAM = "/opt/ctrip"
_PACKAGES = ("systemd", "libsystemd-shared")

Directives = dict[str, list[str]]
"""The values of each directive, `Section.Name`, in the order of the file."""


def read(unit: str) -> Directives:
    """Read a unit with its drop-ins; an instance of the template with the template's."""
    name, _, instance = unit.removesuffix(".service").partition("@")
    files = [FOLDER / (f"{name}@.service" if instance else unit), *sorted((FOLDER / f"{unit}.d").glob("*.conf"))]
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        section = ""
        for line in file.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                key, _, value = line.partition("=")
                found[f"{section}.{key}"].append(value.replace("%i", instance))
    return dict(found)


def single(unit: str, directive: str) -> str:
    """The value of a directive that stands once."""
    (value,) = read(unit)[directive]
    return value


def credentials(unit: str) -> dict[str, str]:
    """What is loaded for a unit: name and source."""
    return dict(value.split(":", 1) for value in read(unit)["Service.LoadCredential"])


def environment(unit: str) -> dict[str, str]:
    """What the unit itself sets."""
    pairs = (pair for line in read(unit)["Service.Environment"] for pair in shlex.split(line))
    return dict(pair.split("=", 1) for pair in pairs)


@dataclass(frozen=True)
class Service:
    """How to run a unit here, and how long it may take to stop."""

    command: list[str]
    environment: dict[str, str] = field(repr=False)
    stop_within_s: float


def service(
    unit: str, *, folder: Path, settings: Mapping[str, str], secrets: Mapping[str, str], ports: Mapping[str, int]
) -> Service:
    """Make a unit runnable. `settings` stand in for /etc/ctrip/ctrip.env, `ports` for those that the unit names."""
    home = folder / unit
    (home / "tmp").mkdir(parents=True)
    for name in credentials(unit):
        (home / name).write_text(secrets[name])
    own = {key: str(ports.get(value, value)).replace("%d", str(home)) for key, value in environment(unit).items()}
    plain = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(home / "tmp")}
    command = [_here(str(ports.get(word, word))) for word in shlex.split(single(unit, "Service.ExecStart"))]
    changed = {key: _here(value) for key, value in own.items()}
    return Service(command, {**plain, **settings, **changed}, float(single(unit, "Service.TimeoutStopSec")))


def verify(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Let systemd read all units, as it would where the program is installed."""
    units = folder / "units"
    for file in sorted(FOLDER.rglob("*.*")):
        if file.is_file():
            copy = units / file.relative_to(FOLDER)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(_here(file.read_text()))
    analyze = tools.find("systemd-analyze", packages=_PACKAGES)
    fetched = analyze.parents[1] if analyze.is_relative_to(ROOT) else units
    libraries = os.pathsep.join(str(library.parent) for library in fetched.rglob("libsystemd-shared*.so"))
    named = [str(units / name) for name in ("ctrip.target", "ctrip-api.service", "ctrip-scheduler.service")]
    named += [str(units / path.name.removesuffix(".d")) for path in FOLDER.glob("*.d")]
    return subprocess.run(
        [analyze, "verify", "--man=no", *named],
        env={**os.environ, "LD_LIBRARY_PATH": libraries, "SYSTEMD_UNIT_PATH": f"{units}:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _here(text: str) -> str:
    return text.replace(f"{_PROGRAM}/.venv/bin", str(Path(sys.executable).parent)).replace(_PROGRAM, str(ROOT))
