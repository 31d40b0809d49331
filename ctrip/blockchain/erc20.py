"""The few words of ERC-20 that cTrip speaks, as call data and topics (EIP-20, Solidity's ABI)."""

from collections.abc import Iterable

from ctrip.blockchain.decoding import Log
from ctrip.domain.addresses import ADDRESS_BYTES

TRANSFER_TOPIC = bytes.fromhex("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef")
"""keccak256("Transfer(address,address,uint256)")."""

UPGRADED_TOPIC = bytes.fromhex("bc7cd75a20ee27fd9adebab32041f755214dbc6bffa90cc0225b39da2e5c2d3b")
"""keccak256("Upgraded(address)"), which a proxy tells when its implementation changes (ERC-1967)."""

_TRANSFER = bytes.fromhex("a9059cbb")
_BALANCE_OF = bytes.fromhex("70a08231")
_DECIMALS = bytes.fromhex("313ce567")
_WORD = 32


def transfer_call(recipient: bytes, amount: int) -> bytes:
    """Return the call data of `transfer(recipient, amount)`."""
    return _TRANSFER + address_word(recipient) + amount.to_bytes(_WORD)


def balance_of_call(holder: bytes) -> bytes:
    """Return the call data of `balanceOf(holder)`."""
    return _BALANCE_OF + address_word(holder)


def decimals_call() -> bytes:
    """Return the call data of `decimals()`."""
    return _DECIMALS


def address_word(address: bytes) -> bytes:
    """Return an address as an argument or a topic: 32 bytes."""
    if len(address) != ADDRESS_BYTES:
        raise ValueError(f"an address has {ADDRESS_BYTES} bytes, not {len(address)}")
    return address.rjust(_WORD, b"\0")


def moved(logs: Iterable[Log], *, token: bytes, sender: bytes, recipient: bytes) -> int | None:
    """Return how much of `token` went from `sender` to `recipient` by these logs; None where no log says so."""
    topics = (TRANSFER_TOPIC, address_word(sender), address_word(recipient))
    amounts = [int.from_bytes(log.payload[:_WORD]) for log in logs if (log.address, log.topics) == (token, topics)]
    return sum(amounts) if amounts else None
