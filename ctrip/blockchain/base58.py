"""Base58Check: how extended keys are written, with four bytes of checksum (BIP-32, section Serialization format)."""

from hashlib import sha256

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_CHECKSUM_BYTES = 4
_MAX_CHARACTERS = 128


def encode_check(payload: bytes) -> str:
    """Write `payload` and its checksum in base 58."""
    content = payload + _checksum(payload)
    number, digits = int.from_bytes(content), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _ALPHABET[digit] + digits
    return "1" * (len(content) - len(content.lstrip(b"\0"))) + digits


def decode_check(text: str) -> bytes:
    """Read the payload of `text`. Raises ValueError, which never shows the text: it may be a key."""
    if len(text) > _MAX_CHARACTERS or not set(text) <= set(_ALPHABET):
        raise ValueError("a character that base 58 does not have")
    number = 0
    for character in text:
        number = number * 58 + _ALPHABET.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    content = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)
    payload, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if len(content) < _CHECKSUM_BYTES or checksum != _checksum(payload):
        raise ValueError("a wrong checksum: a character is mistyped or missing")
    return payload


def _checksum(payload: bytes) -> bytes:
    return sha256(sha256(payload).digest()).digest()[:_CHECKSUM_BYTES]
