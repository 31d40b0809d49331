"""Makes a dev chain ready for cTrip: the test token, the gas wallet's coin, chains.yaml, and a look at its past."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import Connection

from ctrip.database import cursors
from ctrip.domain.addresses import checksum_address, hex_text, parse_address
from ctrip.errors import MisconfiguredError, NodeRefused, NodeUnavailable
from ctrip.local.node import USDC_DECIMALS, DevNode

CHAIN_NAME = "anvil"
CONFIRMATIONS = 3
POLL_S = 0.5
_ETHER = 10**18
_GAS_WALLET_LEAST, _GAS_WALLET_GIFT = _ETHER, 10 * _ETHER
_FAUCET_TOKENS = 1_000_000 * 10**USDC_DECIMALS
_ETH_RATES = {"static": "ETH", "kraken": "ETH", "coingecko": "ethereum"}
_USDC_RATES = {"static": "USDC", "kraken": "USDC", "coingecko": "usd-coin"}


@dataclass(frozen=True)
class DevChainSetup:
    """The chain as the stack uses it. `faucet` is an unlocked account that holds coin and tokens."""

    name: str
    chain_id: int
    rpc_url: str
    treasury: bytes
    faucet: bytes
    usdc: bytes


def set_up_chain(node: DevNode, *, chains_file: Path, gas_wallet: bytes) -> DevChainSetup:
    """Deploy the test token where it is missing, fund the gas wallet and the faucet, and write chains.yaml.

    What a person changed in chains.yaml stays, save the node's address and the token's. Raises MisconfiguredError.
    """
    faucet, treasury = _accounts(node)
    chain_id = node.chain_id()
    row = _kept_row(chains_file, chain_id) or _new_row(chain_id, treasury)
    usdc = _token(node, row, faucet)
    if node.balance(gas_wallet) < _GAS_WALLET_LEAST:
        _mined(node, node.send(sender=faucet, to=gas_wallet, value=_GAS_WALLET_GIFT))
    if node.balance(faucet, usdc) < _FAUCET_TOKENS // 2:
        _mined(node, node.mint(usdc, to=faucet, amount=_FAUCET_TOKENS, sender=faucet))
    row["rpc_urls"] = [node.url]
    _name_for_rates(row, usdc)
    chains_file.write_text(yaml.safe_dump({"chains": [row]}, sort_keys=False))
    return DevChainSetup(row["name"], chain_id, node.url, parse_address(row["treasury"]), faucet, usdc)


def check_past(session: Connection, node: DevNode, chain_id: int, *, data_dir: Path) -> None:
    """Refuse a chain that does not hold what was read of it. A short step back is an ordinary reorg and passes.

    Raises MisconfiguredError that says what happened and what to do.
    """
    cursor = cursors.find(session, chain_id)
    if cursor is None:
        return
    stored = cursors.headers(session, chain_id)
    for header in sorted(stored, key=lambda header: header.number, reverse=True):
        block = node.block(header.number)
        if block is not None and block["hash"] == hex_text(header.hash):
            return
    raise MisconfiguredError(
        f"The dev chain at {node.url} went back behind what was read. cTrip has read up to block {cursor.read_block}; "
        f"the chain is at block {node.block_number()} and has none of the {len(stored)} blocks that cTrip remembers. "
        "It was started afresh or its state was lost, so the payments in the database stand on blocks that are no "
        f"more. To begin anew, remove the data: rm -r {data_dir}. To keep them, bring the chain's state back."
    )


def _accounts(node: DevNode) -> tuple[bytes, bytes]:
    try:
        accounts = node.accounts()
    except NodeUnavailable as error:
        raise MisconfiguredError(f"CHAIN_RPC: no node answers at {node.url}; unset it to have one started") from error
    except NodeRefused as error:
        raise MisconfiguredError(f"CHAIN_RPC: {node.url} shows no accounts: {error.rpc_message}") from error
    if len(accounts) < 2:
        raise MisconfiguredError(
            f"CHAIN_RPC: {node.url} has {len(accounts)} unlocked accounts; a dev node (anvil, hardhat node) has two at "
            "least, one that pays and one that is the treasury"
        )
    return accounts[0], accounts[-1]


def _kept_row(chains_file: Path, chain_id: int) -> dict[str, Any] | None:
    if not chains_file.exists():
        return None
    try:
        row: dict[str, Any] = yaml.safe_load(chains_file.read_text())["chains"][0]
        kept_id = row["chain_id"]
    except (yaml.YAMLError, LookupError, TypeError) as error:
        raise MisconfiguredError(f"{chains_file} cannot be read; mend or remove it: {error}") from error
    if kept_id != chain_id:
        raise MisconfiguredError(
            f"the node answers chain id {chain_id}, {chains_file} was written for {kept_id}; set another DATA_DIR"
        )
    return row


def _new_row(chain_id: int, treasury: bytes) -> dict[str, Any]:
    return {
        "name": CHAIN_NAME,
        "chain_id": chain_id,
        "native": {"symbol": "ETH", "decimals": 18},
        "confirmations": CONFIRMATIONS,
        "reorg_window": 64,
        "poll_seconds": POLL_S,
        "treasury": checksum_address(treasury),
        "sweep": {"max_fee_gwei": 200},
        "tokens": [],
    }


def _name_for_rates(row: dict[str, Any], usdc: bytes) -> None:
    """Let sources of rates know the coin and the test token, where a file of an earlier version does not say how."""
    row["native"].setdefault("rates", _ETH_RATES)
    for token in row["tokens"]:
        if parse_address(token["address"]) == usdc:
            token.setdefault("rates", _USDC_RATES)


def _token(node: DevNode, row: dict[str, Any], faucet: bytes) -> bytes:
    listed = next((token for token in row["tokens"] if token["symbol"] == "USDC"), None)
    if listed is not None and node.has_code(parse_address(listed["address"])):
        return parse_address(listed["address"])
    receipt = _mined(node, node.send_token_contract(faucet))
    usdc = parse_address(receipt["contractAddress"])
    token = {"symbol": "USDC", "address": checksum_address(usdc), "decimals": USDC_DECIMALS}
    row["tokens"] = [token, *(other for other in row["tokens"] if other is not listed)]
    return usdc


def _mined(node: DevNode, tx_hash: bytes) -> dict[str, Any]:
    node.mine_now()
    receipt = node.wait_mined(tx_hash)
    if receipt["status"] != "0x1":
        raise MisconfiguredError(f"{hex_text(tx_hash)} failed on {node.url}: is it a dev chain?")
    return receipt
