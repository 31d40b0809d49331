"""Seed phrases for the operator's wallet tools: a new one, and the account's extended public key of one (BIP-39).

No server imports this: eth_account costs memory, and only the sweeper's signer may turn a phrase into keys that sign.
"""

import hmac
import re
from functools import cache
from hashlib import sha256

from coincurve import PrivateKey
from Crypto.Hash import RIPEMD160
from eth_account.hdaccount.deterministic import HardNode, derive_child_key
from eth_account.hdaccount.mnemonic import Mnemonic
from eth_account.types import Language

from ctrip.blockchain.addresses import ACCOUNT_DEPTH, HARDENED, XPUB_VERSION
from ctrip.blockchain.base58 import encode_check
from ctrip.errors import MisconfiguredError

WORDS = 24
SHORTEST = 12
_WORD = re.compile(r"[A-Za-z]+")
_PURPOSE, _ETHER, _ACCOUNT = HardNode(44), HardNode(60), HardNode(0)


def new_mnemonic() -> str:
    """Return 24 English words that carry 256 bits of the operating system's randomness."""
    return Mnemonic(Language.ENGLISH).generate(WORDS)


def holds_phrase(text: str) -> bool:
    """Return whether SHORTEST words of BIP-39's English list stand in a row in `text`, as prose never has them."""
    in_a_row = last_end = 0
    for found in _WORD.finditer(text):
        is_next = in_a_row and text[last_end : found.start()].isspace()
        in_a_row = (in_a_row + 1 if is_next else 1) if found[0] in _listed() else 0
        last_end = found.end()
        if in_a_row == SHORTEST:
            return True
    return False


@cache
def _listed() -> frozenset[str]:
    return frozenset(Mnemonic(Language.ENGLISH).wordlist)


def account_xpub(mnemonic: str) -> str:
    """Return the `xpub…` of m/44'/60'/0'. Raises MisconfiguredError, which never shows the phrase."""
    phrase = " ".join(mnemonic.split())
    if not Mnemonic(Language.ENGLISH).is_mnemonic_valid(phrase):
        raise MisconfiguredError(
            "WALLET_MNEMONIC: is no seed phrase; it is 12 to 24 English words of BIP-39, the last one holds a checksum"
        )
    master = hmac.digest(b"Bitcoin seed", Mnemonic.to_seed(phrase), "sha512")
    purpose = derive_child_key(master[:32], master[32:], _PURPOSE)
    coin_key, coin_code = derive_child_key(*purpose, _ETHER)
    account_key, account_code = derive_child_key(coin_key, coin_code, _ACCOUNT)
    parent = RIPEMD160.new(sha256(_public(coin_key)).digest()).digest()[:4]
    position = bytes([ACCOUNT_DEPTH]) + parent + HARDENED.to_bytes(4)
    return encode_check(XPUB_VERSION + position + account_code + _public(account_key))


def _public(key: bytes) -> bytes:
    return PrivateKey(key).public_key.format()
