"""Deposit addresses from the account's extended public key alone: no private key is near (BIP-32, BIP-44)."""

import hmac
from hashlib import sha256

from coincurve import PublicKey
from eth_hash.auto import keccak

from ctrip.blockchain.base58 import decode_check
from ctrip.domain.addresses import ADDRESS_BYTES
from ctrip.errors import InvalidValue, MisconfiguredError

HARDENED = 2**31
ACCOUNT_DEPTH = 3
XPUB_VERSION = bytes.fromhex("0488b21e")
_PRIVATE_VERSIONS = (bytes.fromhex("0488ade4"), bytes.fromhex("04358394"))
_XPUB_BYTES = 78
_RIGHT = "WALLET_XPUB is the account's extended public key at m/44'/60'/0', which `ctrip wallet xpub` prints"


class DepositWallet:
    """The addresses `/0/index` below the account key `m/44'/60'/0'`. Threads may share it.

    Public keys alone, but whoever has them sees every deposit, and together with any one child's private key they
    give all private keys: the extended key is never shown, logged or stored. `fingerprint` names the wallet in rows.
    """

    def __init__(self, public_key: bytes, chain_code: bytes) -> None:
        self.fingerprint = sha256(public_key + chain_code).digest()[:8]
        branch_key, self._chain_code = _child(PublicKey(public_key), chain_code, 0)
        self._branch_key = branch_key

    @classmethod
    def from_xpub(cls, xpub: str) -> "DepositWallet":
        """Read an `xpub…`. Raises MisconfiguredError, which never shows it, unless it is that of m/44'/60'/0'."""
        try:
            payload = decode_check(xpub.strip())
        except ValueError as error:
            raise MisconfiguredError(f"WALLET_XPUB: is no extended key, it has {error}; {_RIGHT}") from None
        version, depth, child = payload[:4], payload[4:5], int.from_bytes(payload[9:13])
        if version in _PRIVATE_VERSIONS:
            raise MisconfiguredError(f"WALLET_XPUB: is a private key, which must not be here; {_RIGHT}")
        if len(payload) != _XPUB_BYTES or version != XPUB_VERSION:
            raise MisconfiguredError(f"WALLET_XPUB: is not of the kind that begins with xpub; {_RIGHT}")
        if depth[0] != ACCOUNT_DEPTH:
            raise MisconfiguredError(f"WALLET_XPUB: has depth {depth[0]}, not {ACCOUNT_DEPTH}; {_RIGHT}")
        if child != HARDENED:
            account = f"{child - HARDENED}'" if child > HARDENED else f"{child}, which is not hardened"
            raise MisconfiguredError(f"WALLET_XPUB: is of account {account}, not of 0'; {_RIGHT}")
        try:
            return cls(public_key=payload[45:], chain_code=payload[13:45])
        except ValueError:
            raise MisconfiguredError(f"WALLET_XPUB: holds no point of the curve; {_RIGHT}") from None

    def address(self, index: int) -> bytes:
        """Return the 20 bytes of the address at `/0/index`. Raises InvalidValue outside 0 … 2^31 - 1."""
        if not 0 <= index < HARDENED:
            raise InvalidValue(f"{index} is no index of a deposit address; it is 0 to {HARDENED - 1}")
        key, _ = _child(self._branch_key, self._chain_code, index)
        return keccak(key.format(compressed=False)[1:])[-ADDRESS_BYTES:]


def _child(key: PublicKey, chain_code: bytes, index: int) -> tuple[PublicKey, bytes]:
    """Derive a child's public key and chain code (BIP-32, CKDpub).

    BIP-32 tells to skip an index without a valid key. Its chance is below 2^-127, so here it is a ValueError.
    """
    digest = hmac.digest(chain_code, key.format() + index.to_bytes(4), "sha512")
    return key.add(digest[:32]), digest[32:]
