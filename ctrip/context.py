"""All that a use case may need, built once by bootstrap and passed first. No behaviour; threads share all of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from ctrip.blockchain.client import ChainClient
from ctrip.database.deposit_indexes import DepositIndexes
from ctrip.database.engine import Sessions
from ctrip.domain.ids import Prefix
from ctrip.recent import Recent
from ctrip.settings import Settings

if TYPE_CHECKING:
    # What only some roles hold is loaded by them alone: a listener has no memory to spare for ciphers and mail.
    from ctrip.blockchain.addresses import DepositWallet
    from ctrip.blockchain.signer import Signer
    from ctrip.outbound.counters import Counters
    from ctrip.outbound.email import Mailer
    from ctrip.outbound.http import Poster
    from ctrip.outbound.rates import RateSource

NewId = Callable[[Prefix], str]


class Box(Protocol):
    """Encrypts what must be stored but not read: webhook secrets."""

    def encrypt(self, secret: bytes) -> bytes:
        """Encrypt under the newest key."""
        ...

    def decrypt(self, stored: bytes) -> bytes:
        """Decrypt under any of the keys."""
        ...


@dataclass(frozen=True)
class Context:
    """A role that may not hold a field has None there; a service that meets None was called by the wrong role.

    `clients` maps a chain id to its client, `rate_sources` a name to who tells rates. `now` is aware UTC. `new_id`
    makes unguessable, time-ordered ids.
    """

    settings: Settings
    sessions: Sessions
    now: Callable[[], datetime]
    new_id: NewId
    clients: Mapping[int, ChainClient]
    wallet: "DepositWallet | None" = None
    signer: "Signer | None" = None
    box: Box | None = None
    poster: "Poster | None" = None
    mailer: "Mailer | None" = None
    counters: "Counters | None" = None
    rate_sources: "Mapping[str, RateSource]" = field(default_factory=dict)
    indexes: DepositIndexes = field(default_factory=DepositIndexes)
    recent: Recent = field(default_factory=Recent)
