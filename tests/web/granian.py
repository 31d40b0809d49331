"""`wsgi.py` under Granian, as it is run, in a test's hands."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import requests
import yaml

from tests.conftest import ROOT, SECRETS_KEY, XPUB
from tests.factories import CHAIN_ID, TOKEN, TREASURY
from tests.waiting import wait_until

_CHAIN = {
    "name": "anvil",
    "chain_id": CHAIN_ID,
    "rpc_urls": ["http://127.0.0.1:1"],
    "native": {"symbol": "ETH", "decimals": 18},
    "confirmations": 3,
    "treasury": "0x" + TREASURY.hex(),
    "sweep": {"max_fee_gwei": 200},
    "tokens": [{"symbol": "USDC", "address": "0x" + TOKEN.hex(), "decimals": 6}],
}


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def api_environment(postgres_url: str, folder: Path, **more: str) -> dict[str, str]:
    """The environment of an API process with one chain; Redis is away unless REDIS_URL is among `more`."""
    chains = folder / "chains.yaml"
    chains.write_text(yaml.safe_dump({"chains": [_CHAIN]}))
    return {
        "PATH": os.environ["PATH"],
        "ENV": "test",
        "DATABASE_URL": postgres_url.replace("+psycopg2", ""),
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "CHAINS_FILE": str(chains),
        "WALLET_XPUB": XPUB,
        "SECRETS_KEY": SECRETS_KEY,
        **more,
    }


def granian(environment: dict[str, str], port: int, **kwargs: object) -> "subprocess.Popen[str]":
    server = ("granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--no-ws")
    more = ("--workers", "1", "--blocking-threads", "4", "wsgi:application")
    argv = (sys.executable, "-m", *server, *more)
    return subprocess.Popen(argv, cwd=ROOT, env=environment, text=True, **kwargs)  # type: ignore[call-overload]


@contextmanager
def serving(environment: dict[str, str]) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """Run the API; yields its master and its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    master = granian(environment, port, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(url), within_s=30, what="the API answers")
        yield master, url
    finally:
        master.send_signal(signal.SIGTERM)
        master.wait(timeout=15)


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/livez", timeout=2).status_code == 200
    except requests.ConnectionError:
        return False
