"""`ctrip coverage` claims no more than somebody told: the first payment's block is asked of the chain."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ctrip.context import Context
from tests.devchain import ETHER, DevChain
from tests.tool import Tool
from tests.world import World

pytestmark = pytest.mark.infra


@pytest.mark.parametrize("change", [{"rpc_urls": ["http://127.0.0.1:1"]}, {"enabled": False}], ids=["away", "off"])
def test_where_no_node_tells_when_the_first_block_was_it_does_not_say_that_there_is_no_gap(
    ctrip: Tool,
    ctx: Context,
    anvil: DevChain,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: dict[str, Any],
) -> None:
    world = World(ctx, anvil)
    name = world.chain.name
    anvil.mine(2)
    world.scan()

    (row,) = yaml.safe_load(Path(environment["CHAINS_FILE"]).read_text())["chains"]
    path = tmp_path / "chains.yaml"
    path.write_text(yaml.safe_dump({"chains": [row | change]}))
    monkeypatch.setenv("CHAINS_FILE", str(path))
    assert ctrip("coverage", name).code == 0, "no address was issued, and nobody needs to be asked"

    world.ask(ETHER)
    told = ctrip("coverage", name)
    first = ctrip("coverage", name, "--json").json["first_block"]
    assert told.code == 1
    assert f"whether a payment may be in a block before {first} is not known" in told.out
    assert "no gap" not in told.out
    assert ctrip("coverage", name, "--json").json["first_block_is_known"] is False

    monkeypatch.setenv("CHAINS_FILE", environment["CHAINS_FILE"])
    told = ctrip("coverage", name)
    assert told.code == 0
    assert "no gap" in told.out
