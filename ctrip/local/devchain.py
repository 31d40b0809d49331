"""The dev chain: anvil, fetched once from npm with a pinned version, or py-evm where there is no npm."""

import shutil
import subprocess
import sys
from pathlib import Path

import requests

from ctrip.local.children import Program, free_port
from ctrip.local.options import ROOT, plain_environment

CHAIN_PORT = 8545
CHAIN_ID = 31337
ANVIL_VERSION = "1.7.1"
MNEMONIC = "test test test test test test test test test test test junk"
"""The public mnemonic of every dev chain. Its ten accounts are unlocked there and worthless anywhere else."""


def find_anvil(folder: Path) -> Path | None:
    """Return the pinned anvil that npm put below `folder`, or None."""
    return next(folder.glob("node_modules/@foundry-rs/anvil-*/bin/anvil"), None)


def install_anvil(folder: Path) -> Path | None:
    """Fetch the pinned anvil with npm into `folder`; None without npm or where it fails (npm says why)."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder)]
    # The package holds one binary per platform as optional dependencies; no script of it runs.
    package = f"@foundry-rs/anvil@{ANVIL_VERSION}"
    try:
        subprocess.run([npm, "install", *options, package], check=False, timeout=300)
    except subprocess.TimeoutExpired:
        return None
    return find_anvil(folder)


def anvil(
    binary: Path, *, port: int = CHAIN_PORT, block_time_s: float | None = 1, state: Path | None = None
) -> tuple[Program, str]:
    """Return how to run anvil and its URL; the next free port from `port`.

    `block_time_s` None: it mines only when it is told to. With a `state` file the chain goes on where it stopped; a
    kill loses at most one second of it. The states of old blocks are not kept (at 3,000 blocks they take 600 MB), so a
    reorg can go back to the last start, no further.
    """
    port = free_port(port)
    url = f"http://127.0.0.1:{port}"
    where = url if block_time_s is None else f"{url}, a block every {block_time_s:g} s"
    argv = [str(binary), "--port", str(port), "--chain-id", str(CHAIN_ID), "--mnemonic", MNEMONIC, "--silent"]
    # Told when to mine it is a test's, forked and turned back again and again: from states that it wrote to its disk
    # cache it comes back without the code of contracts, so as many as a session makes stay in memory.
    argv += ["--no-mining", "--prune-history", "5000"] if block_time_s is None else ["--block-time", str(block_time_s)]
    if state is not None:
        argv += ["--state", str(state), "--state-interval", "1"]
    return Program("anvil", tuple(argv), plain_environment(), is_ready=lambda: answers(url), where=where), url


def py_evm(*, port: int = CHAIN_PORT, block_time_s: float = 1) -> tuple[Program, str]:
    """Return how to run the chain without npm: in memory, no reorgs. See `ctrip.local.pyevm`."""
    port = free_port(port)
    url = f"http://127.0.0.1:{port}"
    argv = (sys.executable, "-m", "ctrip.local.pyevm", "--port", str(port), "--block-time", str(block_time_s))
    where = f"{url}, a block every {block_time_s:g} s, in memory only, no reorgs"
    return (
        Program("py-evm", argv, plain_environment(), is_ready=lambda: answers(url), where=where, folder=ROOT),
        url,
    )


def answers(url: str) -> bool:
    """Say whether a node answers there."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
    try:
        return "result" in requests.post(url, json=request, timeout=2).json()
    except (requests.RequestException, ValueError):
        return False
