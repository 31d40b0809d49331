"""The wallet of the local stack: made at the first start, kept in DATA_DIR/keys.json, handed to the sweeper alone."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from coincurve import PrivateKey
from eth_hash.auto import keccak

from ctrip.box import new_secrets_key
from ctrip.domain.addresses import ADDRESS_BYTES, checksum_address
from ctrip.errors import MisconfiguredError
from ctrip.local.files import read_json, write_private_json


@dataclass(frozen=True)
class Keys:
    """What cTrip needs to derive, sign and encrypt. `gas_wallet` is the address of `gas_key`, as text."""

    mnemonic: str = field(repr=False)
    xpub: str = field(repr=False)
    gas_key: str = field(repr=False)
    gas_wallet: str
    secrets_key: str = field(repr=False)


def keep_keys(path: Path) -> Keys:
    """Return the keys in the file; where there is none, make them and write it (mode 0600).

    Raises MisconfiguredError where the file is not as it was written: new keys would strand the old wallet's money.
    """
    kept = read_json(path)
    if kept is not None:
        try:
            return Keys(**kept)
        except TypeError as error:
            names = ", ".join(field.name for field in dataclasses.fields(Keys))
            raise MisconfiguredError(
                f"{path} must hold exactly {names}; restore it, or set another DATA_DIR"
            ) from error
    keys = _new_keys()
    write_private_json(path, dataclasses.asdict(keys))
    return keys


def _new_keys() -> Keys:
    from ctrip.blockchain.mnemonic import account_xpub, new_mnemonic  # noqa: PLC0415 (half a second, once in a life)

    mnemonic = new_mnemonic()
    gas_key = PrivateKey()
    public_key = gas_key.public_key.format(compressed=False)[1:]
    return Keys(
        mnemonic=mnemonic,
        xpub=account_xpub(mnemonic),
        gas_key="0x" + gas_key.secret.hex(),
        gas_wallet=checksum_address(keccak(public_key)[-ADDRESS_BYTES:]),
        secrets_key=new_secrets_key(),
    )
