"""What the scanner is measured against: the plain one, a block after the other with web3.py; and the limit.

`python -m bench.scan_plain plain|limit URL FIRST LAST ADDRESSES` prints one line of JSON.
"""

import json
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson
from web3 import Web3
from web3.types import FilterParams

from bench.costs import peak_mb
from bench.scan_blocks import issued_address
from bench.scan_bodies import LISTED, TRANSFER
from ctrip.domain.transfers import NATIVE_LOG_INDEX

BATCH = 20


def plain(url: str, numbers: Sequence[int], addresses: set[bytes]) -> list[list[Any]]:
    """Find the payments to `addresses`, as rows of block, transaction, log, recipient and amount."""
    web3 = Web3(Web3.HTTPProvider(url))
    tokens = [Web3.to_checksum_address(token) for token in LISTED]
    found: list[list[Any]] = []
    for number in numbers:
        block: Any = web3.eth.get_block(number, full_transactions=True)
        for tx in block["transactions"]:
            if tx["value"] and tx.get("to") and bytes.fromhex(tx["to"][2:]) in addresses:
                found.append([number, tx["hash"].hex(), NATIVE_LOG_INDEX, tx["to"][2:].lower(), tx["value"]])
        asked: FilterParams = {"fromBlock": number, "toBlock": number, "address": tokens, "topics": [TRANSFER]}
        for log in web3.eth.get_logs(asked):
            recipient = bytes(log["topics"][2][-20:])
            if recipient in addresses:
                amount = int.from_bytes(log["data"])
                found.append([number, log["transactionHash"].hex(), log["logIndex"], recipient.hex(), amount])
    return found


def limit(url: str, numbers: Sequence[int]) -> None:
    """Read the bytes of the same blocks and logs in batches, and build Python's objects of them. Nothing else."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port)) as connection:
        for at in range(0, len(numbers), BATCH):
            batch = numbers[at : at + BATCH]
            blocks = [("eth_getBlockByNumber", [hex(number), True]) for number in batch]
            logs = {
                "fromBlock": hex(batch[0]),
                "toBlock": hex(batch[-1]),
                "address": list(LISTED),
                "topics": [TRANSFER],
            }
            for calls in (blocks, [("eth_getLogs", [logs])]):
                request = [
                    {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                    for number, (method, params) in enumerate(calls)
                ]
                orjson.loads(_exchange(connection, where.path, orjson.dumps(request)))


def _exchange(connection: socket.socket, path: str, body: bytes) -> bytes:
    connection.sendall(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body)
    head, _, reply = connection.recv(2**20).partition(b"\r\n\r\n")
    left = int(head.lower().split(b"content-length:")[1].split()[0]) - len(reply)
    parts = [reply]
    while left:
        parts.append(connection.recv(2**20))
        left -= len(parts[-1])
    return b"".join(parts)


def main() -> None:
    what, url, first, last, count = sys.argv[1:]
    numbers = range(int(first), int(last) + 1)
    addresses = {issued_address(number) for number in range(int(count))}
    found: list[list[Any]] = []
    began, cpu = time.perf_counter(), time.process_time()
    if what == "plain":
        found = plain(url, numbers, addresses)
    else:
        limit(url, numbers)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "rss_mb": peak_mb(), "found": found}))


if __name__ == "__main__":
    main()
