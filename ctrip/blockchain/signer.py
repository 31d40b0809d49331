"""The only file that sees a key. It signs sweeps to the treasury and gas top-ups to our own addresses, nothing else.

What may be signed is decided here again, from the settings: a wrong row or a wrong caller cannot move money elsewhere.
Only the process that signs imports this module: eth_account costs 30 MB.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from coincurve import PrivateKey
from eth_account import Account
from eth_account.hdaccount.mnemonic import Mnemonic
from eth_account.types import Language
from eth_hash.auto import keccak

from ctrip.blockchain.addresses import DepositWallet
from ctrip.blockchain.erc20 import transfer_call
from ctrip.domain.addresses import ADDRESS_BYTES, DEPOSIT_BRANCH, NATIVE, checksum_address, hex_text
from ctrip.domain.chains import Chain
from ctrip.domain.sweeps import Order
from ctrip.errors import MisconfiguredError, SigningRefused

MAX_GAS = 3_000_000
"""More than any transfer of tokens uses; it bounds what one transaction may burn, and what one top-up may bring."""
_HARDENED = 2**31
_EIP_1559 = 2
_KEY_DIGITS = 64


@dataclass(frozen=True)
class Signed:
    """A signed transaction, as it is broadcast, and its hash."""

    raw: bytes
    tx_hash: bytes


class Signer:
    """Holds the seed's account key m/44'/60'/0' and the gas wallet's key. Shows neither. Threads may share it."""

    def __init__(self, mnemonic: str, gas_key: str, *, wallet: DepositWallet, chains: Sequence[Chain]) -> None:
        """Raise MisconfiguredError, which never shows a secret, where a key is none or the seed is another wallet's."""
        self._branch_key, self._branch_code = _deposit_branch(mnemonic)
        self._gas_key = _private_key(gas_key)
        self._chains = {chain.chain_id: chain for chain in chains}
        if self.address(0) != wallet.address(0):
            raise MisconfiguredError(
                "WALLET_MNEMONIC: is the seed of another wallet than WALLET_XPUB; what is paid to the addresses of the "
                "one could not be moved with the other. `ctrip wallet xpub` prints the xpub that belongs to a seed"
            )
        self.gas_address = _address(self._gas_key)

    def __repr__(self) -> str:
        return "Signer()"

    def address(self, index: int) -> bytes:
        """Return the deposit address `/0/index`, derived from its private key."""
        return _address(self._key(index))

    def sign_sweep(self, order: Order, *, index: int, address: bytes) -> Signed:
        """Sign a transfer from the deposit address `/0/index` to the chain's treasury.

        Raises SigningRefused where the recipient is not the treasury, the asset is not configured, or `address` is
        not that of the index.
        """
        chain = self._checked(order)
        if order.recipient != chain.treasury:
            raise SigningRefused(f"{hex_text(order.recipient)} is not the treasury of {chain.name}")
        if chain.token_at(order.token) is None:
            raise SigningRefused(f"{hex_text(order.token)} is no configured asset of {chain.name}")
        key = self._key(index)
        if _address(key) != address:
            raise SigningRefused(f"{hex_text(address)} is not the address of index {index} of this wallet")
        return _sign(order, key)

    def sign_topup(self, order: Order, *, index: int) -> Signed:
        """Sign a transfer of coin from the gas wallet to the deposit address `/0/index`.

        Raises SigningRefused where the recipient is another address, or gets more than a sweep there can ever need.
        """
        chain = self._checked(order)
        if order.token != NATIVE:
            raise SigningRefused("the gas wallet pays out coin alone")
        if order.recipient != self.address(index):
            raise SigningRefused(f"{hex_text(order.recipient)} is not the address of index {index} of this wallet")
        if order.amount > MAX_GAS * chain.sweep.max_fee:
            raise SigningRefused(f"{order.amount} wei is more than the gas of any sweep on {chain.name} may cost")
        return _sign(order, self._gas_key)

    def _checked(self, order: Order) -> Chain:
        chain = self._chains.get(order.chain_id)
        if chain is None:
            raise SigningRefused(f"chain {order.chain_id} is not configured")
        price = order.price
        if not 0 < price.max_fee <= chain.sweep.max_fee:
            raise SigningRefused(f"{price.max_fee} wei per gas is not within the ceiling of {chain.name}")
        if price.priority_fee is not None and not 0 <= price.priority_fee <= price.max_fee:
            raise SigningRefused(f"a tip of {price.priority_fee} wei per gas is above the maximum fee")
        if not 0 < order.gas_limit <= MAX_GAS:
            raise SigningRefused(f"a gas limit of {order.gas_limit} is more than any sweep needs")
        if order.amount < 0 or order.nonce < 0:
            raise SigningRefused("an amount or a nonce is negative")
        return chain

    def _key(self, index: int) -> PrivateKey:
        if not 0 <= index < _HARDENED:
            raise SigningRefused(f"{index} is no index of a deposit address")
        return _child(self._branch_key, self._branch_code, index)[0]


def _sign(order: Order, key: PrivateKey) -> Signed:
    is_coin, price = order.token == NATIVE, order.price
    transaction: dict[str, object] = {
        "chainId": order.chain_id,
        "nonce": order.nonce,
        "gas": order.gas_limit,
        "to": checksum_address(order.recipient if is_coin else order.token),
        "value": order.amount if is_coin else 0,
        "data": b"" if is_coin else transfer_call(order.recipient, order.amount),
    }
    if price.priority_fee is None:
        transaction["gasPrice"] = price.max_fee
    else:
        fees = {"type": _EIP_1559, "maxFeePerGas": price.max_fee, "maxPriorityFeePerGas": price.priority_fee}
        transaction |= fees
    signed = Account.sign_transaction(transaction, key.secret)
    return Signed(raw=bytes(signed.raw_transaction), tx_hash=bytes(signed.hash))


def _deposit_branch(mnemonic: str) -> tuple[PrivateKey, bytes]:
    """Return the private key and chain code of m/44'/60'/0'/0, below which the deposit addresses are."""
    phrase = " ".join(mnemonic.split())
    if not Mnemonic(Language.ENGLISH).is_mnemonic_valid(phrase):
        raise MisconfiguredError(
            "WALLET_MNEMONIC: is no seed phrase; it is 12 to 24 English words of BIP-39, the last one holds a checksum"
        )
    master = hmac.digest(b"Bitcoin seed", Mnemonic.to_seed(phrase), "sha512")
    key, chain_code = PrivateKey(master[:32]), master[32:]
    for step in DEPOSIT_BRANCH.split("/")[1:]:
        number = int(step.rstrip("'"))
        key, chain_code = _child(key, chain_code, number + _HARDENED if step.endswith("'") else number)
    return key, chain_code


def _private_key(text: str) -> PrivateKey:
    digits = text.strip().removeprefix("0x")
    try:
        return PrivateKey(bytes.fromhex(digits if len(digits) == _KEY_DIGITS else ""))
    except ValueError:
        raise MisconfiguredError("GAS_KEY: is no private key; it is 0x and 64 hex digits") from None


def _child(key: PrivateKey, chain_code: bytes, number: int) -> tuple[PrivateKey, bytes]:
    """Derive a child's private key and chain code (BIP-32, CKDpriv). A key that is none has a chance below 2^-127."""
    content = b"\0" + key.secret if number >= _HARDENED else key.public_key.format()
    digest = hmac.digest(chain_code, content + number.to_bytes(4), "sha512")
    return key.add(digest[:32]), digest[32:]


def _address(key: PrivateKey) -> bytes:
    return keccak(key.public_key.format(compressed=False)[1:])[-ADDRESS_BYTES:]
