"""Compile the contracts of the dev chain into the committed JSON files: `python -m contracts.build`."""

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def compiled(source: Path) -> dict[str, object]:
    """Return the ABI and the creation bytecode of a Vyper source; the `vyper` beside this Python does the work."""
    vyper = Path(sys.executable).parent / "vyper"
    command = [str(vyper), "-f", "abi,bytecode", source.name]
    lines = subprocess.run(command, cwd=FOLDER, check=True, capture_output=True, text=True).stdout.splitlines()  # noqa: S603 (fixed command)
    return {"compiler": "vyper 0.4.3", "source": source.name, "abi": json.loads(lines[0]), "bytecode": lines[1]}


if __name__ == "__main__":
    for source in sorted(FOLDER.glob("*.vy")):
        source.with_suffix(".json").write_text(json.dumps(compiled(source), indent=1) + "\n")
