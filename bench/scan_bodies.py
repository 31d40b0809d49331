"""The bodies of the synthetic node's blocks: 200 transactions, 400 logs (150 ERC-20 Transfers), geth's set of fields.

A few dozen bodies are made once. Every block is one of them, with what is its own put in between.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from eth_utils.crypto import keccak

TRANSACTIONS, LOGS, TRANSFERS = 200, 400, 150
USDT = "0xdac17f958d2ee523a2206206994597c13d831ec7"
USDC = "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48"
DAI = "0x6b175474e89094c44da98b954eedeac495271d0f"
LISTED = {USDT: 6, USDC: 6, DAI: 18}
"""The tokens that the scanners look for, and their decimals."""
TRANSFER = "0x" + keccak(text="Transfer(address,address,uint256)").hex()
_OTHERS = ["0x" + keccak(text=name).hex() for name in ("Swap", "Sync", "Approval")]
_STRANGERS, _CONTRACTS = 50_000, 400


@dataclass(frozen=True)
class Log:
    """A log as text, up to where it names its block."""

    transaction: int
    address: str
    topics: tuple[str, ...]
    text: bytes


@dataclass(frozen=True)
class Body:
    """What blocks share. None stands where a block puts in its own: a coin payment, two logs and their transactions.

    `bloom` is that of the shared logs. `tokens_at` are the transactions of the two token payments; each has one log.
    """

    header: bytes
    transactions: tuple[bytes | None, ...]
    hashes: tuple[bytes | None, ...]
    logs: tuple[Log | None, ...]
    bloom: int
    coin_at: int
    tokens_at: tuple[int, int]

    def log_index(self, payment: int) -> int:
        """Return where in the block the log of the first or the second token payment stands."""
        return [index for index, log in enumerate(self.logs) if log is None][payment]


def make_bodies(count: int, *, seed: int = 7) -> tuple[Body, ...]:
    """Make bodies; the same ones for the same seed."""
    chance = random.Random(seed)
    crowd = _Crowd(
        people=[_hex(chance, 20) for _ in range(_STRANGERS)],
        contracts=[_hex(chance, 20) for _ in range(_CONTRACTS)],
    )
    return tuple(_body(chance, crowd) for _ in range(count))


def bloom_of(address: str, topics: Sequence[str]) -> int:
    """Return the bits that a log sets in a block's logsBloom (yellow paper, 4.3.1)."""
    bits = 0
    for item in (address, *topics):
        bits |= _bloom_bits(item)
    return bits


def word(address: str) -> str:
    """Pad an address to the 32 bytes of a topic."""
    return "0x" + "0" * 24 + address[2:]


def text_of(fields: dict[str, object]) -> bytes:
    """Write fields as JSON without the closing brace, ready for more fields."""
    return json.dumps(fields, separators=(",", ":"))[:-1].encode() + b","


@dataclass(frozen=True)
class _Crowd:
    people: list[str]
    contracts: list[str]


@lru_cache(maxsize=2**17)
def _bloom_bits(item: str) -> int:
    digest = keccak(hexstr=item)
    return sum({1 << (int.from_bytes(digest[at : at + 2]) & 2047) for at in (0, 2, 4)})


def _hex(chance: random.Random, length: int) -> str:
    return "0x" + chance.randbytes(length).hex()


def _body(chance: random.Random, crowd: _Crowd) -> Body:
    coin_at = chance.randrange(190, TRANSACTIONS - 1)
    first, second = sorted(chance.sample(range(190), 2))
    own = {coin_at, first, second}
    hashes = [None if n in own else _hex(chance, 32).encode() for n in range(TRANSACTIONS)]
    transactions = [
        None if name is None else _transaction(chance, crowd, name.decode(), number)
        for number, name in enumerate(hashes)
    ]
    logs = _logs(chance, crowd, hashes, tokens_at=(first, second), coin_at=coin_at)
    bloom = 0
    for log in logs:
        bloom |= bloom_of(log.address, log.topics) if log else 0
    return Body(
        header=text_of(_header(chance)),
        transactions=tuple(transactions),
        hashes=tuple(hashes),
        logs=tuple(logs),
        bloom=bloom,
        coin_at=coin_at,
        tokens_at=(first, second),
    )


def _header(chance: random.Random) -> dict[str, object]:
    withdrawal = {"validatorIndex": "0x186a0", "address": _hex(chance, 20), "amount": "0x11d1234"}
    return {
        "baseFeePerGas": "0x2540be400",
        "blobGasUsed": "0x0",
        "difficulty": "0x0",
        "excessBlobGas": "0x0",
        "extraData": "0x6265617665726275696c642e6f7267",
        "gasLimit": "0x1c9c380",
        "gasUsed": "0xe4e1c0",
        "miner": _hex(chance, 20),
        "mixHash": _hex(chance, 32),
        "nonce": "0x0000000000000000",
        "parentBeaconBlockRoot": _hex(chance, 32),
        "receiptsRoot": _hex(chance, 32),
        "sha3Uncles": _hex(chance, 32),
        "size": "0x1d4c0",
        "stateRoot": _hex(chance, 32),
        "transactionsRoot": _hex(chance, 32),
        "uncles": [],
        "withdrawals": [{"index": hex(10**7 + number), **withdrawal} for number in range(16)],
        "withdrawalsRoot": _hex(chance, 32),
    }


def _transaction(chance: random.Random, crowd: _Crowd, name: str, number: int) -> bytes:
    kind, value, call = chance.random(), 0, "0x"
    if kind < 0.35:
        value = chance.randrange(10**15, 10**18)
    elif kind < 0.70:
        call = "0xa9059cbb" + chance.randbytes(64).hex()
    elif kind < 0.90:
        value, call = chance.choice([0, 0, 10**17]), _hex(chance, chance.randrange(200, 900))
    else:
        call = _hex(chance, chance.randrange(900, 4000))
    is_creation = number == TRANSACTIONS - 1
    to = None if is_creation else chance.choice(crowd.people)
    return _transaction_text(chance, name, number, sender=chance.choice(crowd.people), to=to, value=value, call=call)


def _transaction_text(
    chance: random.Random, name: str, number: int, *, sender: str, to: str | None, value: int, call: str
) -> bytes:
    fields: dict[str, object] = {
        "type": "0x2",
        "chainId": "0x1",
        "nonce": hex(chance.randrange(10**5)),
        "gas": hex(chance.randrange(21_000, 500_000)),
        "maxFeePerGas": hex(chance.randrange(10**10, 10**11)),
        "maxPriorityFeePerGas": hex(chance.randrange(10**8, 10**9)),
        "accessList": [],
        "yParity": "0x1",
    }
    if chance.random() < 0.25:  # of the type before EIP-2930
        fields = {"type": "0x0", "nonce": fields["nonce"], "gas": fields["gas"]}
    own = {"to": to, "value": hex(value), "input": call, "hash": name, "from": sender}
    signature = {"r": _hex(chance, 32), "s": _hex(chance, 32), "v": "0x1"}
    price = {"transactionIndex": hex(number), "gasPrice": hex(chance.randrange(10**10, 10**11))}
    return text_of(fields | own | signature | price)


def _logs(
    chance: random.Random, crowd: _Crowd, hashes: list[bytes | None], *, tokens_at: tuple[int, int], coin_at: int
) -> list[Log | None]:
    per_transaction = [2] * TRANSACTIONS
    per_transaction[coin_at] = per_transaction[-1] = 0
    for number in tokens_at:
        per_transaction[number] = 1
    free = [number for number in range(190) if number not in tokens_at]
    for number in chance.sample(free, LOGS - sum(per_transaction)):
        per_transaction[number] += 1
    where = [number for number, count in enumerate(per_transaction) for _ in range(count)]
    shared = LOGS - len(tokens_at)
    is_transfer = [n < TRANSFERS - len(tokens_at) for n in range(shared)]
    chance.shuffle(is_transfer)
    kinds = iter(is_transfer)
    return [
        None if name is None else _log(chance, crowd, name.decode(), number, index, is_transfer=next(kinds))
        for index, number in enumerate(where)
        for name in [hashes[number]]
    ]


def _log(chance: random.Random, crowd: _Crowd, name: str, number: int, index: int, *, is_transfer: bool) -> Log:
    if is_transfer:
        address = chance.choice([USDT] * 4 + [USDC] * 3 + [DAI] + [chance.choice(crowd.contracts)] * 6)
        topics = [TRANSFER, word(chance.choice(crowd.people)), word(chance.choice(crowd.people))]
        payload = "0x" + chance.randrange(10**6, 10**12).to_bytes(32).hex()
    else:
        address, topic = chance.choice(crowd.contracts), chance.choice(_OTHERS)
        topics = [topic] if topic == _OTHERS[1] else [topic, _hex(chance, 32), _hex(chance, 32)]
        payload = _hex(chance, chance.choice([32, 64, 160]))
    return log_of(name, number, index, address=address, topics=topics, payload=payload)


def log_of(name: str, number: int, index: int, *, address: str, topics: Sequence[str], payload: str) -> Log:
    """Write a log up to where it names its block."""
    text = text_of(
        {
            "address": address,
            "topics": list(topics),
            "data": payload,
            "transactionHash": name,
            "transactionIndex": hex(number),
            "logIndex": hex(index),
            "removed": False,
        }
    )
    return Log(transaction=number, address=address, topics=tuple(topics), text=text)


def digest(*parts: object) -> bytes:
    """Make 32 bytes that follow from the parts alone."""
    return sha256(" ".join(map(str, parts)).encode()).digest()
