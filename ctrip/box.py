"""The box that webhook secrets are kept in: encrypted in the database, readable only with SECRETS_KEY."""

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from ctrip.errors import MisconfiguredError


class SecretsBox:
    """Encrypts under the first key and decrypts under any: to rotate, put a new key in front of the old ones."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def encrypt(self, secret: bytes) -> bytes:
        """Encrypt under the newest key."""
        return self._fernet.encrypt(secret)

    def decrypt(self, stored: bytes) -> bytes:
        """Decrypt under any of the keys. Raises MisconfiguredError where none of them fits."""
        try:
            return self._fernet.decrypt(stored)
        except InvalidToken:
            raise MisconfiguredError(
                "SECRETS_KEY: none of its keys opens a stored secret; list the older key after the newest, with a comma"
            ) from None


def new_secrets_key() -> str:
    """Return a fresh value for SECRETS_KEY."""
    return Fernet.generate_key().decode()
