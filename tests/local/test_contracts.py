"""The committed bytecode is that of the committed source."""

import json
from pathlib import Path

import pytest

from contracts.build import FOLDER, compiled


@pytest.mark.parametrize("source", sorted(FOLDER.glob("*.vy")), ids=lambda source: source.stem)
def test_the_committed_bytecode_is_what_the_source_compiles_to(source: Path) -> None:
    assert json.loads(source.with_suffix(".json").read_text()) == compiled(source)
