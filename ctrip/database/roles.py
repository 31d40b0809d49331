"""Who may do what in Postgres: four groups of users, and the one table that says it of every table.

    ctrip_migrator   owns all of it and may change the schema; the operator's tool works as a member
    ctrip_api        adds payments, and changes what a merchant or an operator asks it to; nothing of the signer's
    ctrip_worker     the workers and the scheduler: what chains, sweeps and deliveries say; no key, no merchant
    ctrip_readonly   reads everything but secrets

Nobody connects as a group: the users that processes connect as are members of one. `granting.py` has the statements.
Whoever adds a table adds a line to TABLES; a test fails without it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ctrip.database.models import metadata


class Group(StrEnum):
    """The groups, by their names in Postgres."""

    MIGRATOR = "ctrip_migrator"
    API = "ctrip_api"
    WORKER = "ctrip_worker"
    READONLY = "ctrip_readonly"


class Kind(StrEnum):
    """What a privilege is for, in the word of GRANT."""

    TABLE = "TABLE"
    SEQUENCE = "SEQUENCE"
    FUNCTION = "FUNCTION"


@dataclass(frozen=True)
class Privilege:
    """One verb for one object: for all of it, or for some columns of a table."""

    kind: Kind
    name: str
    verb: str
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        of = f" ({', '.join(self.columns)})" if self.columns else ""
        return f"{self.verb}{of} ON {self.name}"


@dataclass(frozen=True)
class Access:
    """What api and worker may do with an object, in the words of GRANT. All may read a table but its `secret` columns.

    That is: members of ctrip_readonly may. Who locks rows FOR UPDATE must be able to update a column of them.
    """

    api: str = ""
    worker: str = ""
    secret: tuple[str, ...] = ()


# Of a payment these alone ever change: what was asked for, and where it is to be paid, stands for good.
_STANDING = (
    "UPDATE (version, status, received, confirmed, amount_status, timing, settlement, completed_block,"
    " canceled_at, accepted_at, accepted_amount, detected_at, confirmed_at, settled_at)"
)
_DELIVERY = (
    "UPDATE (url, origin, status, next_attempt_at, kicked_at, lease_until, fence, attempts_before_schedule,"
    " dead_reason, delivered_at)"
)
_ENDPOINT = (
    "UPDATE (url, origin, events, status, disabled_reason, secret, former_secret, former_until, failing_since,"
    " deleted_at)"
)
# What is swept of a payment, for `settled` and for money on a chain that is gone; of what was signed, nothing.
_COVERED = "SELECT (id, kind, chain_id, address, token, payment_id, state, amount, gas_cost, own_coin)"
_ALL = "SELECT, INSERT, UPDATE, DELETE"
_KEPT = "SELECT, INSERT, UPDATE"
"""Never taken away."""
_BOOKS = "SELECT, INSERT"
"""Never changed either."""

TABLES: Mapping[str, Access] = {
    "alembic_version": Access("SELECT", "SELECT"),
    "merchants": Access("SELECT (id, name, email, tolerance_bps), INSERT", "SELECT", secret=("webhook_secret",)),
    "api_keys": Access(
        "SELECT, INSERT, UPDATE (expires_at, revoked_at, last_used_at, replaced_by)", secret=("secret_hash",)
    ),
    "payments": Access(f"SELECT, INSERT, {_STANDING}", f"SELECT, {_STANDING}, UPDATE (waits_for)"),
    "deposit_addresses": Access("INSERT", "SELECT"),
    "transfers": Access("SELECT", _KEPT),
    "refused_transfers": Access("", "SELECT, INSERT, DELETE"),
    "events": Access(_BOOKS, _BOOKS),
    "webhook_endpoints": Access(
        f"SELECT, INSERT, {_ENDPOINT}",
        "SELECT, UPDATE (status, disabled_reason, failing_since)",
        secret=("secret", "former_secret"),
    ),
    "webhook_origins": Access("", _ALL),
    "webhook_deliveries": Access(f"SELECT, INSERT, {_DELIVERY}", _KEPT),
    "webhook_attempts": Access("SELECT", _BOOKS),
    "chain_cursors": Access("SELECT", _KEPT),
    "chain_headers": Access("SELECT", _ALL),
    "coverage": Access("", _ALL),
    "balance_checks": Access("", _KEPT),
    "rpc_limits": Access("", _KEPT),
    "rates": Access("SELECT", _ALL),
    "rate_sources": Access("", _ALL),
    "loops": Access("SELECT, UPDATE (enabled, next_run_at, kicked_at)", _KEPT),
    "sweep_intents": Access(_COVERED, _ALL),
    "sweep_attempts": Access("", _BOOKS, secret=("raw",)),
    "signers": Access("", _ALL),
    "queue_snapshots": Access("SELECT", _KEPT),
    "emails": Access("SELECT (id, kind, payment_id), INSERT", _ALL),
    "jobs": Access("SELECT, INSERT", _ALL),
    "dead_letters": Access("SELECT, UPDATE (replay_requested_at, replayed_at, replays, purged_at)", _ALL),
    "audit_log": Access(_BOOKS, _BOOKS),
    "idempotency_keys": Access(
        _KEPT,
        # Housekeeping locks what it deletes.
        "SELECT, UPDATE (created_at), DELETE",
        secret=("request_hash", "response"),
    ),
}

SEQUENCES: Mapping[str, Access] = {
    "deposit_index": Access("USAGE"),
    # An identity: whoever may insert draws from it.
    "coverage_id_seq": Access(),
}

FUNCTIONS: Mapping[str, Access] = {
    "refuse()": Access(),  # a trigger's
    "set_transfers_aside(text[])": Access("EXECUTE"),
    "choose_asset(text,bigint,text,bytea,text,integer,numeric,integer,text,timestamp with time zone,"
    "timestamp with time zone,jsonb,timestamp with time zone)": Access("EXECUTE"),
}

_OBJECTS = {Kind.TABLE: TABLES, Kind.SEQUENCE: SEQUENCES, Kind.FUNCTION: FUNCTIONS}
_PRIVILEGE = re.compile(r"([A-Z]+)(?: \(([^)]*)\))?")


def privileges(group: Group) -> Iterator[Privilege]:
    """Yield all that a group is granted. The migrator is granted nothing: it owns everything."""
    for kind, objects in _OBJECTS.items():
        for name, access in objects.items():
            for verb, columns in _PRIVILEGE.findall(_granted(group, kind, name, access)):
                yield Privilege(kind, name, verb, tuple(columns.split(", ")) if columns else ())


def objects() -> Iterator[tuple[Kind, str]]:
    """Yield every table, sequence and function of ours."""
    for kind, named in _OBJECTS.items():
        yield from ((kind, name) for name in named)


def _granted(group: Group, kind: Kind, name: str, access: Access) -> str:
    if group is Group.API:
        return access.api
    if group is Group.WORKER:
        return access.worker
    if group is Group.MIGRATOR or kind is Kind.FUNCTION:
        return ""
    if not access.secret:
        return "SELECT"
    return (
        f"SELECT ({', '.join(column.name for column in metadata.tables[name].c if column.name not in access.secret)})"
    )
