"""The operator's wallet tools: a new wallet, its public key, and whether what was issued is really its own.

No server imports this: it brings eth_account into the process.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ctrip.blockchain.addresses import DepositWallet
from ctrip.blockchain.mnemonic import account_xpub, new_mnemonic
from ctrip.context import Context
from ctrip.database import audit_log, wallet
from ctrip.domain.addresses import checksum_address, hex_text
from ctrip.errors import InvalidValue, MisconfiguredError
from ctrip.log import get_logger

BATCH = 1000
MAX_SKIP = 1_000_000
_MAX_SHOWN = 20
Progress = Callable[[int, int], None]
log = get_logger()


@dataclass(frozen=True)
class NewWallet:
    """A seed phrase, which spends everything, and the public key that the servers derive addresses from."""

    mnemonic: str
    xpub: str


@dataclass(frozen=True)
class Mismatch:
    """An address that the wallet does not derive at the index that its row names."""

    index: int
    issued: str
    derived: str


@dataclass(frozen=True)
class WalletReport:
    """What was found out about a wallet and the addresses that were issued.

    `mismatches` shows the first 20 of `wrong`; `others` counts addresses by the fingerprint of the wallet that is not
    this one, and which this one's sweeper can never empty.
    """

    fingerprint: str
    checked: int
    wrong: int
    mismatches: tuple[Mismatch, ...]
    others: dict[str, int]

    @property
    def is_good(self) -> bool:
        """True where every issued address is this wallet's."""
        return self.wrong == 0 and not self.others


def create() -> NewWallet:
    """Make a wallet. Nothing is stored; what becomes of the phrase is the caller's to say."""
    mnemonic = new_mnemonic()
    return NewWallet(mnemonic, xpub_of(mnemonic))


def xpub_of(mnemonic: str) -> str:
    """Return the extended public key of a seed phrase's account m/44'/60'/0'. Raises MisconfiguredError."""
    return account_xpub(mnemonic)


def check(ctx: Context, *, mnemonic: str | None, on_progress: Progress = lambda _done, _of: None) -> WalletReport:
    """Derive every issued address again and compare. With a phrase, first see that it is WALLET_XPUB's.

    Raises MisconfiguredError where WALLET_XPUB is not set, or not this phrase's.
    """
    if ctx.wallet is None:
        raise MisconfiguredError("WALLET_XPUB: is missing; it is what `ctrip wallet xpub` prints")
    if mnemonic is not None and DepositWallet.from_xpub(xpub_of(mnemonic)).fingerprint != ctx.wallet.fingerprint:
        raise MisconfiguredError(
            "WALLET_MNEMONIC: gives another extended public key than WALLET_XPUB; the sweeper would find no money"
        )
    with ctx.sessions.begin() as session:
        by_wallet = wallet.counts(session)
    total = by_wallet.pop(ctx.wallet.fingerprint, 0)
    checked, wrong, mismatches = 0, 0, list[Mismatch]()
    for found in _batches(ctx, ctx.wallet):
        checked += len(found)
        differing = [_compare(ctx.wallet, issued) for issued in found]
        for mismatch in filter(None, differing):
            wrong += 1
            mismatches += [mismatch][: _MAX_SHOWN - len(mismatches)]
        on_progress(checked, max(total, checked))
    return WalletReport(
        fingerprint=hex_text(ctx.wallet.fingerprint),
        checked=checked,
        wrong=wrong,
        mismatches=tuple(mismatches),
        others={hex_text(fingerprint): count for fingerprint, count in by_wallet.items()},
    )


def advance(ctx: Context, count: int, *, by: str) -> int:
    """Skip `count` derivation indexes. Returns the last one skipped.

    For a database that was restored from a backup: the addresses that were issued after the backup are in use, and
    nobody may get them again. Indexes only ever go forward. Raises InvalidValue.
    """
    if not 1 <= count <= MAX_SKIP:
        raise InvalidValue(f"one can skip 1 to {MAX_SKIP} indexes at a time", param="count")
    with ctx.sessions.begin() as session:
        last = wallet.skip_indexes(session, count)
        detail = {"count": count, "last": last}
        audit_log.add(session, by=by, action="wallet.advance", target=None, detail=detail, new_id=ctx.new_id)
    log.info("indexes_skipped", count=count, last=last)
    return last


def _batches(ctx: Context, own: DepositWallet) -> Iterator[list[wallet.Issued]]:
    after = -1
    while True:
        with ctx.sessions.begin() as session:
            found = wallet.issued(session, own.fingerprint, after=after, limit=BATCH)
        if not found:
            return
        yield found
        after = found[-1].index


def _compare(own: DepositWallet, issued: wallet.Issued) -> Mismatch | None:
    derived = own.address(issued.index)
    if derived == issued.address:
        return None
    return Mismatch(issued.index, checksum_address(issued.address), checksum_address(derived))
