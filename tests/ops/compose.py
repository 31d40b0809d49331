"""docker-compose.yml without Docker: each service's command as it is written there, against parts of this machine.

What a container has of its own is mapped to something of this machine: hosts, ports, the folder of its secrets, which
holds those alone that the service lists, and /tmp. Nothing else is changed.
"""

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.stack import ROOT

OF_THE_OPERATOR = {"MAIL_FROM": "A shop <shop@example.com>", "OPERATOR_EMAIL": "operator@example.com"}
"""What stands in `.env` beside the file."""
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
_INSTRUCTION = re.compile(r"^(ENV|CMD|WORKDIR) (.+)$", re.MULTILINE)


def read() -> dict[str, Any]:
    """Read the file, its merges done and its variables replaced."""
    content: dict[str, Any] = _filled_in(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))
    return content


def _filled_in(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _filled_in(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_filled_in(item) for item in part]
    return _VARIABLE.sub(lambda found: OF_THE_OPERATOR.get(found[1], found[2]), part) if isinstance(part, str) else part


@dataclass(frozen=True)
class Machine:
    """What stands for what: texts of the file, and what they are here. `secrets` are the contents by name."""

    folder: Path
    places: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Container:
    """How to run a service here."""

    command: list[str]
    environment: dict[str, str] = field(repr=False)
    stop_within_s: float


def container(name: str, machine: Machine, *, ports: Mapping[str, int]) -> Container:
    """Make a service runnable. `ports` are this container's own, by the number in the file."""
    service, image = read()["services"][name], _image()
    home = machine.folder / name
    for part in ("secrets", "tmp"):
        (home / part).mkdir(parents=True)
    for secret in service.get("secrets", ()):
        (home / "secrets" / secret).write_text(machine.secrets[secret])
    places = {**machine.places, "/run/secrets/": f"{home}/secrets/"}

    def here(text: str) -> str:
        for theirs, ours in places.items():
            text = text.replace(theirs, ours)
        return str(ports[text]) if text in ports else text

    environment = {key: here(str(value)) for key, value in {**image.environment, **service["environment"]}.items()}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment["TMPDIR"] = str(home / "tmp")
    grace = re.fullmatch(r"(\d+)s", service.get("stop_grace_period", "10s"))
    assert grace is not None
    command = [here(word) for word in service.get("command", image.command)]
    return Container(command, environment, stop_within_s=float(grace[1]))


@dataclass(frozen=True)
class _Image:
    command: list[str]
    environment: dict[str, str]


def _image() -> _Image:
    """Read what the Dockerfile gives to every container."""
    environment: dict[str, str] = {}
    command: list[str] = []
    for instruction, rest in _INSTRUCTION.findall((ROOT / "Dockerfile").read_text()):
        if instruction == "ENV":
            environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif instruction == "CMD":
            command = json.loads(rest)
        else:
            assert rest == "/app"
    return _Image(command, environment)
