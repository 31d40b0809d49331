"""A dev chain made ready, and one that went back behind what was read."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from ctrip.database import cursors
from ctrip.database.engine import Sessions
from ctrip.domain.scanning import Header
from ctrip.errors import MisconfiguredError
from ctrip.local.chain_setup import check_past, set_up_chain
from ctrip.local.node import DevNode
from ctrip.settings.chains import read_chains
from tests.devchain import ETHER, DevChain

pytestmark = pytest.mark.infra

GAS_WALLET = bytes.fromhex("44" * 20)


def header(anvil: DevChain, number: int) -> Header:
    block = anvil.block(number)
    assert block is not None
    return Header(
        number=number,
        hash=bytes.fromhex(block["hash"][2:]),
        parent_hash=bytes.fromhex(block["parentHash"][2:]),
        time=datetime.fromtimestamp(int(block["timestamp"], 16), UTC),
    )


def test_the_first_start_deploys_funds_and_writes_what_settings_can_read(anvil: DevChain, tmp_path: Path) -> None:
    setup = set_up_chain(anvil, chains_file=tmp_path / "chains.yaml", gas_wallet=GAS_WALLET)
    assert anvil.balance(GAS_WALLET) == 10 * ETHER
    assert anvil.balance(setup.faucet, setup.usdc) == 10**12
    (chain,) = read_chains(tmp_path / "chains.yaml")
    assert (chain.name, chain.chain_id, chain.confirmations, chain.reorg_window) == ("anvil", 31337, 3, 64)
    assert chain.rpc_urls == (anvil.url,)
    assert chain.treasury == setup.treasury == anvil.treasury
    assert [(token.symbol, token.address, token.decimals) for token in chain.tokens[1:]] == [("USDC", setup.usdc, 6)]


def test_a_second_start_changes_nothing_but_the_address_of_the_node(anvil: DevChain, tmp_path: Path) -> None:
    chains_file = tmp_path / "chains.yaml"
    first = set_up_chain(anvil, chains_file=chains_file, gas_wallet=GAS_WALLET)
    content = yaml.safe_load(chains_file.read_text())
    content["chains"][0] |= {"confirmations": 5, "rpc_urls": ["http://127.0.0.1:1"]}
    chains_file.write_text(yaml.safe_dump(content))
    head = anvil.block_number()
    assert set_up_chain(anvil, chains_file=chains_file, gas_wallet=GAS_WALLET) == first
    assert anvil.block_number() == head
    (chain,) = read_chains(chains_file)
    assert (chain.confirmations, chain.rpc_urls) == (5, (anvil.url,))


def test_the_coin_and_the_token_have_the_names_that_sources_of_rates_know_them_by(
    anvil: DevChain, tmp_path: Path
) -> None:
    chains_file = tmp_path / "chains.yaml"
    set_up_chain(anvil, chains_file=chains_file, gas_wallet=GAS_WALLET)
    names = {token.symbol: token.rate_names for token in read_chains(chains_file)[0].tokens}
    assert names == {
        "ETH": {"static": "ETH", "kraken": "ETH", "coingecko": "ethereum"},
        "USDC": {"static": "USDC", "kraken": "USDC", "coingecko": "usd-coin"},
    }
    # A file of an earlier version has none, and one that somebody changed stays as it is.
    content = yaml.safe_load(chains_file.read_text())
    del content["chains"][0]["native"]["rates"]
    content["chains"][0]["tokens"][0]["rates"] = {"static": "MINE"}
    chains_file.write_text(yaml.safe_dump(content))
    set_up_chain(anvil, chains_file=chains_file, gas_wallet=GAS_WALLET)
    again = {token.symbol: token.rate_names for token in read_chains(chains_file)[0].tokens}
    assert again == names | {"USDC": {"static": "MINE"}}


def test_the_token_is_deployed_again_where_the_chain_lost_it(anvil: DevChain, tmp_path: Path) -> None:
    chains_file = tmp_path / "chains.yaml"
    first = set_up_chain(anvil, chains_file=chains_file, gas_wallet=GAS_WALLET)
    anvil.set_code(first.usdc, b"")
    second = set_up_chain(anvil, chains_file=chains_file, gas_wallet=GAS_WALLET)
    assert second.usdc != first.usdc
    assert [token.address for token in read_chains(chains_file)[0].tokens[1:]] == [second.usdc]


def test_a_node_of_another_chain_id_is_refused(anvil: DevChain, tmp_path: Path) -> None:
    chains_file = tmp_path / "chains.yaml"
    set_up_chain(anvil, chains_file=chains_file, gas_wallet=GAS_WALLET)
    chains_file.write_text(chains_file.read_text().replace("31337", "1337"))
    with pytest.raises(MisconfiguredError, match=r"answers chain id 31337, .* was written for 1337"):
        set_up_chain(anvil, chains_file=chains_file, gas_wallet=GAS_WALLET)


def test_a_node_that_is_away_is_named(tmp_path: Path) -> None:
    away = DevNode("http://127.0.0.1:9")
    with pytest.raises(MisconfiguredError, match=r"CHAIN_RPC: no node answers at http://127\.0\.0\.1:9"):
        set_up_chain(away, chains_file=tmp_path / "chains.yaml", gas_wallet=GAS_WALLET)


def test_a_chain_that_went_back_a_little_passes_as_a_reorg(anvil: DevChain, sessions: Sessions) -> None:
    anvil.mine(4)
    head = anvil.block_number()
    read = [header(anvil, head - back) for back in (3, 2, 1, 0)]
    with sessions.begin() as session:
        cursors.start(session, 31337, read[0])
        cursors.store_headers(session, 31337, read[1:])
        check_past(session, anvil, 31337, data_dir=Path("/data"))
    anvil.reorg(2)
    with sessions.begin() as session:
        check_past(session, anvil, 31337, data_dir=Path("/data"))


def test_a_chain_that_lost_all_that_was_read_is_explained(anvil: DevChain, sessions: Sessions) -> None:
    read = replace(header(anvil, anvil.block_number()), number=812, hash=b"\x77" * 32)
    with sessions.begin() as session:
        cursors.start(session, 31337, read)
        with pytest.raises(MisconfiguredError) as refused:
            check_past(session, anvil, 31337, data_dir=Path("/data"))
    for words in ("went back behind what was read", "up to block 812", "rm -r /data"):
        assert words in refused.value.detail
