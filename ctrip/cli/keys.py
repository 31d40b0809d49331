"""`ctrip keys`: by what programs and operators are known."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli.files import new_secret_file
from ctrip.cli.output import as_json, print_json, print_pairs, print_table, who
from ctrip.cli.spans import Span
from ctrip.domain.merchants import LONGEST_OVERLAP, MERCHANT_SCOPES, OPERATOR_SCOPES, OVERLAP, ApiKey, key_object
from ctrip.services import merchants

OPERATOR_FILE = Path("operator.key")
_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"])


@click.group(help="By what programs and operators are known.")
def command() -> None:
    """Hold the verbs."""


@command.command()
@click.option("--merchant", "merchant_id", help="Whose key it is.")
@click.option("--operator", is_flag=True, help="An operator's key, for /admin alone.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([str(scope) for scope in sorted(MERCHANT_SCOPES)]),
    help="What it may do; may be given several times. All of them unless given.",
)
@click.option("--expires-at", type=_MOMENT, help="In UTC. Never unless given.")
@click.option(
    "--allow-ip",
    "allowed_ips",
    multiple=True,
    help="An address or network (203.0.113.0/24) to use it from; may be given several times. Anywhere unless given.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Keep the key in a new file of mode 0600 and do not show it. An operator's: {OPERATOR_FILE}.",
)
@as_json()
def create(
    merchant_id: str | None,
    operator: bool,
    scopes: tuple[str, ...],
    expires_at: datetime | None,
    allowed_ips: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Make a key. It is shown this once, or written to --out."""
    if operator == (merchant_id is not None):
        raise click.UsageError("say either --merchant ID or --operator")
    out = out or (OPERATOR_FILE if operator else None)
    with new_secret_file(out) as keep:
        key_id, key = merchants.create_key(
            bootstrap(Role.CLI),
            by=who(),
            merchant_id=merchant_id,
            scopes=OPERATOR_SCOPES if operator else scopes or MERCHANT_SCOPES,
            expires_at=expires_at and expires_at.replace(tzinfo=UTC),
            allowed_ips=allowed_ips or None,
        )
        keep(key)
    _show("key created", key_id, key, out=out, as_json=as_json)


@command.command()
@click.argument("key_id")
@click.option("--expires-at", type=_MOMENT, help="In UTC. It lives as long as the other was made for unless given.")
@click.option(
    "--allow-ip",
    "allowed_ips",
    multiple=True,
    help="An address or network to use it from; may be given several times. From where the other is used unless given.",
)
@click.option(
    "--overlap",
    type=Span(name="overlap", most=LONGEST_OVERLAP),
    default=OVERLAP,
    help="How long the other one works on: 30m, 12h, 7d; 0s ends it at once. 24h unless given.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the key in a new file of mode 0600 and do not show it.",
)
@as_json()
def rotate(
    key_id: str,
    expires_at: datetime | None,
    allowed_ips: tuple[str, ...],
    overlap: timedelta,
    out: Path | None,
    as_json: bool,
) -> None:
    """Let a new key take the place of one, which works for a while more."""
    with new_secret_file(out) as keep:
        new_id, key = merchants.rotate_key(
            bootstrap(Role.CLI),
            key_id,
            by=who(),
            expires_at=expires_at and expires_at.replace(tzinfo=UTC),
            allowed_ips=allowed_ips or None,
            overlap=overlap,
        )
        keep(key)
    _show("key rotated", new_id, key, out=out, as_json=as_json)


@command.command("list")
@click.option("--merchant", "merchant_id", help="Only this merchant's.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--after", help="Only keys older than this id.")
@as_json()
def list_(merchant_id: str | None, limit: int, after: str | None, as_json: bool) -> None:
    """List keys, newest first."""
    found = merchants.list_keys(bootstrap(Role.CLI), merchant_id=merchant_id, limit=limit, after=after)
    if as_json:
        print_json([key_object(key) for key in found])
        return
    columns = ("id", "merchant", "scopes", "state", "last used", "created")
    print_table("keys", columns, [_row(key) for key in found])


@command.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """End a key, within a second."""
    key = merchants.revoke_key(bootstrap(Role.CLI), key_id, by=who())
    click.echo(f"{key.id} is revoked since {key.revoked_at:%Y-%m-%d %H:%M:%S} UTC")


def _show(title: str, key_id: str, key: str, *, out: Path | None, as_json: bool) -> None:
    made = {"id": key_id, "key": key} if out is None else {"id": key_id, "written_to": str(out)}
    print_json(made) if as_json else print_pairs(title, made)


def _row(key: ApiKey) -> tuple[object, ...]:
    shown = key_object(key)
    state = "live"
    if key.revoked_at is not None:
        state = f"revoked {shown['revoked_at']}"
    elif key.expires_at is not None:
        state = f"{'expired' if key.is_expired else 'until'} {shown['expires_at']}"
    owner = key.merchant_id or "(operator)"
    return key.id, owner, " ".join(sorted(key.scopes)), state, shown["last_used_at"], shown["created_at"]
