"""The files of DATA_DIR that hold secrets: mode 0600 from their first byte, replaced whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner may read. A crash leaves the old file or the new one."""
    beginning = path.with_name(path.name + ".unfinished")
    beginning.unlink(missing_ok=True)
    descriptor = os.open(beginning, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beginning.replace(path)


def write_private_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a file by JSON that only its owner may read."""
    write_private(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None where there is no such file."""
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    return content
