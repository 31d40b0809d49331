"""Deposit addresses from the extended public key: equal to what the seed gives, and no other key is accepted."""

import hmac
from hashlib import sha256

import pytest
from coincurve import PrivateKey
from eth_account import Account
from eth_account.hdaccount.deterministic import HardNode, derive_child_key
from eth_account.hdaccount.mnemonic import Mnemonic
from hypothesis import given
from hypothesis import strategies as st

from ctrip.blockchain.addresses import XPUB_VERSION, DepositWallet
from ctrip.blockchain.base58 import decode_check, encode_check
from ctrip.blockchain.mnemonic import account_xpub, new_mnemonic
from ctrip.domain.addresses import checksum_address
from ctrip.errors import InvalidValue, MisconfiguredError

HARDHAT = "test test test test test test test test test test test junk"
HARDHAT_ADDRESSES = (
    "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
    "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
)
"""What Hardhat and anvil print at their start."""
ABANDON = " ".join(["abandon"] * 11 + ["about"])
ABANDON_XPUB = (
    "xpub6DCoCpSuQZB2jawqnGMEPS63ePKWkwWPH4TU45Q7LPXWuNd8TMtVxRrgjtEshuqpK3mdhaWHPFsBngh5GFZaM6si3yZdUsT8ddYM3PwnATt"
)
"""What BIP-39 tools show as the account extended public key of m/44'/60'/0' for this phrase."""
BIP32_VECTORS = (
    # Test vector 1 of BIP-32: m and m/0H.
    "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8",
    "xpub68Gmy5EdvgibQVfPdqkBBCHxA5htiqg55crXYuXoQRKfDBFA1WEjWgP6LHhwBZeNK1VTsfTFUHCdrfp1bgwQ9xv5ski8PX9rL2dZXvgGDnw",
)


def xpub(*, depth: int = 3, child: int = 2**31, version: bytes = XPUB_VERSION, key: bytes | None = None) -> str:
    """An extended key of the abandon wallet with one part changed."""
    payload = decode_check(ABANDON_XPUB)
    position = bytes([depth]) + payload[5:9] + child.to_bytes(4)
    return encode_check(version + position + payload[13:45] + (payload[45:] if key is None else key))


def test_the_addresses_of_the_hardhat_wallet_are_those_that_everybody_knows() -> None:
    wallet = DepositWallet.from_xpub(account_xpub(HARDHAT))
    assert tuple(checksum_address(wallet.address(i)) for i in range(4)) == HARDHAT_ADDRESSES


def test_the_public_key_gives_the_addresses_that_the_seed_gives() -> None:
    Account.enable_unaudited_hdwallet_features()
    phrase = new_mnemonic()
    wallet = DepositWallet.from_xpub(account_xpub(phrase))
    for index in (*range(10), 2**31 - 1):
        by_seed = Account.from_mnemonic(phrase, account_path=f"m/44'/60'/0'/0/{index}")
        assert checksum_address(wallet.address(index)) == by_seed.address, index


def test_the_xpub_is_the_one_that_other_tools_show() -> None:
    assert account_xpub(ABANDON) == ABANDON_XPUB
    assert account_xpub("  abandon abandon\n" + " ".join(["abandon"] * 9) + " about ") == ABANDON_XPUB


def test_the_fingerprint_names_the_wallet() -> None:
    payload = decode_check(ABANDON_XPUB)
    wallet, again = DepositWallet.from_xpub(ABANDON_XPUB), DepositWallet.from_xpub(f" {ABANDON_XPUB}\n")
    assert wallet.fingerprint == again.fingerprint == sha256(payload[45:] + payload[13:45]).digest()[:8]
    assert wallet.fingerprint != DepositWallet.from_xpub(account_xpub(HARDHAT)).fingerprint


@pytest.mark.parametrize("index", [-1, 2**31, 2**40])
def test_an_index_outside_the_range_is_refused(index: int) -> None:
    with pytest.raises(InvalidValue):
        DepositWallet.from_xpub(ABANDON_XPUB).address(index)


def private_key() -> str:
    """The xprv of m/44'/60'/0' of the abandon phrase."""
    master = hmac.digest(b"Bitcoin seed", Mnemonic.to_seed(ABANDON), "sha512")
    key, code = master[:32], master[32:]
    for number in (44, 60, 0):
        key, code = derive_child_key(key, code, HardNode(number))
    return encode_check(bytes.fromhex("0488ade4") + decode_check(ABANDON_XPUB)[4:13] + code + b"\0" + key)


REFUSED = {
    "depth 0, the master key": (xpub(depth=0, child=0), "depth 0"),
    "depth 2": (xpub(depth=2), "depth 2"),
    "depth 4, one branch too deep": (xpub(depth=4, child=0), "depth 4"),
    "depth 5, a single address": (xpub(depth=5, child=0), "depth 5"),
    "another account": (xpub(child=2**31 + 1), "account 1'"),
    "a child that is not hardened": (xpub(child=0), "not hardened"),
    "a private key": (private_key(), "private key"),
    "a testnet key": (xpub(version=bytes.fromhex("043587cf")), "begins with xpub"),
    "a segwit key": (xpub(version=bytes.fromhex("04b24746")), "begins with xpub"),
    "no point of the curve": (xpub(key=b"\x02" + b"\xff" * 32), "no point"),
    "a key that is cut short": (encode_check(decode_check(ABANDON_XPUB)[:70]), "begins with xpub"),
    "a mistyped character": (ABANDON_XPUB[:-1] + "u", "checksum"),
    "a character that is not in base 58": (ABANDON_XPUB[:-1] + "0", "base 58"),
    "nothing": ("", "checksum"),
    "very much": ("x" * 5000, "base 58"),
}


@pytest.mark.parametrize(("text", "wrong"), REFUSED.values(), ids=REFUSED.keys())
def test_any_other_key_is_refused_without_being_shown(text: str, wrong: str) -> None:
    with pytest.raises(MisconfiguredError) as refusal:
        DepositWallet.from_xpub(text)
    message = refusal.value.detail
    assert message.startswith("WALLET_XPUB: ")
    assert wrong in message
    assert "m/44'/60'/0'" in message, "it does not say what would be right"
    assert not text or text not in message
    assert refusal.value.__cause__ is None, "a chained error could show what this one does not"


def test_the_private_key_in_the_table_is_the_one_of_this_public_key() -> None:
    assert private_key().startswith("xprv")
    public = PrivateKey(decode_check(private_key())[46:]).public_key.format()
    assert public == decode_check(ABANDON_XPUB)[45:]


@pytest.mark.parametrize(
    "phrase",
    ["", "abandon", " ".join(["abandon"] * 12), ABANDON.replace("about", "zoo"), ABANDON + " abandon", "geheim " * 12],
)
def test_a_phrase_with_a_wrong_checksum_is_refused_without_being_shown(phrase: str) -> None:
    with pytest.raises(MisconfiguredError) as refusal:
        account_xpub(phrase)
    assert not phrase or phrase not in refusal.value.detail
    assert refusal.value.__cause__ is None


def test_a_new_phrase_has_24_words_and_is_new() -> None:
    first, second = new_mnemonic(), new_mnemonic()
    assert len(first.split()) == 24
    assert first != second


@pytest.mark.parametrize(("depth", "key"), tuple(enumerate(BIP32_VECTORS)))
def test_base58check_reads_the_vectors_of_bip_32(depth: int, key: str) -> None:
    payload = decode_check(key)
    assert (payload[:4], payload[4]) == (XPUB_VERSION, depth)
    assert encode_check(payload) == key


@given(st.binary(max_size=80))
def test_base58check_gives_back_what_it_was_given(payload: bytes) -> None:
    assert decode_check(encode_check(payload)) == payload


def test_base58check_keeps_leading_zeros() -> None:
    # The address of the zero hash: the first vector of many a base 58 library.
    assert encode_check(bytes(21)) == "1111111111111111111114oLvT2"
    assert decode_check("1111111111111111111114oLvT2") == bytes(21)
