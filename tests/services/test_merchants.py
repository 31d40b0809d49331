"""Merchants and keys: shown once, stored so that the database alone opens nothing, and refused when they should be."""

import dataclasses
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook

from ctrip.context import Context
from ctrip.database.models import api_keys, merchants
from ctrip.domain.merchants import MERCHANT_SCOPES, Scope
from ctrip.errors import InvalidValue, MisconfiguredError, NotFound, Unauthorized
from ctrip.services.merchants import authenticate, create_key, create_merchant, list_keys, revoke_key
from tests.conftest import MERCHANT_ID

pytestmark = pytest.mark.infra


def make_key(ctx: Context, expires_at: datetime | None = None) -> tuple[str, str]:
    return create_key(ctx, by="tests", merchant_id=MERCHANT_ID, scopes=["payments:read"], expires_at=expires_at)


def set_key(ctx: Context, key_id: str, **values: object) -> None:
    with ctx.sessions.begin() as session:
        session.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(**values))


def last_used(ctx: Context, key_id: str) -> datetime | None:
    with ctx.sessions.begin() as session:
        return session.scalar(sa.select(api_keys.c.last_used_at).where(api_keys.c.id == key_id))


# --- merchants ------------------------------------------------------------------------------------------------------


def test_a_merchants_webhook_secret_signs_and_is_stored_encrypted(ctx: Context) -> None:
    merchant_id, secret = create_merchant(
        ctx, by="tests", name="Bücher & Co", email="shop@example.com", tolerance_bps=50
    )
    with ctx.sessions.begin() as session:
        row = session.execute(sa.select(merchants).where(merchants.c.id == merchant_id)).one()
    assert (row.name, row.email, row.tolerance_bps) == ("Bücher & Co", "shop@example.com", 50)
    assert secret.encode() not in row.webhook_secret
    assert ctx.box is not None
    assert ctx.box.decrypt(row.webhook_secret).decode() == secret
    assert Webhook(secret).sign("evt_1", datetime.now(UTC), "{}").startswith("v1,")
    assert secret != create_merchant(ctx, by="tests", name="Another")[1]


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "   "}),
        ("name", {"name": "x" * 201}),
        ("name", {"name": "a\x1b[2Jb"}),
        ("email", {"name": "A", "email": "nobody"}),
        ("email", {"name": "A", "email": "a@b@c"}),
        ("email", {"name": "A", "email": "a@b\nBcc: all@example.com"}),
        ("underpayment_tolerance", {"name": "A", "tolerance_bps": -1}),
        ("underpayment_tolerance", {"name": "A", "tolerance_bps": 10_000}),
    ],
)
def test_a_merchant_that_cannot_be_is_refused(ctx: Context, param: str, fields: dict[str, object]) -> None:
    with pytest.raises(InvalidValue) as refusal:
        create_merchant(ctx, by="tests", **fields)  # type: ignore[arg-type]
    assert refusal.value.param == param


def test_a_process_without_the_box_makes_no_merchant(ctx: Context) -> None:

    with pytest.raises(MisconfiguredError, match="SECRETS_KEY"):
        create_merchant(dataclasses.replace(ctx, box=None), by="tests", name="A")


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_key_tells_whose_it_is(ctx: Context) -> None:
    key_id, key = create_key(ctx, by="tests", merchant_id=MERCHANT_ID, scopes=["payments:read", "webhooks:write"])
    identity = authenticate(ctx, key)
    assert (identity.key_id, identity.merchant_id) == (key_id, MERCHANT_ID)
    assert identity.scopes == {Scope.PAYMENTS_READ, Scope.WEBHOOKS_WRITE}


def test_an_operators_key_has_no_merchant(ctx: Context) -> None:
    _, key = create_key(ctx, by="tests", merchant_id=None, scopes=["admin"])
    identity = authenticate(ctx, key)
    assert identity.merchant_id is None
    assert identity.scopes == {Scope.ADMIN}


def test_the_database_does_not_hold_the_key(ctx: Context) -> None:
    _, key = make_key(ctx)
    _, public_id, secret = key.split("_", 2)
    with ctx.sessions.begin() as session:
        stored = repr(session.execute(sa.select(api_keys)).all())
    assert public_id in stored
    assert secret not in stored
    assert len(secret) == 43, "256 bits"


@pytest.mark.parametrize(
    ("merchant_id", "scopes"),
    [
        (MERCHANT_ID, []),
        (MERCHANT_ID, ["admin"]),
        (MERCHANT_ID, ["payments:read", "admin"]),
        (MERCHANT_ID, ["payments:delete"]),
        (None, []),
        (None, ["payments:read"]),
        (None, ["admin", "payments:read"]),
    ],
)
def test_scopes_that_do_not_belong_together_are_refused(
    ctx: Context, merchant_id: str | None, scopes: list[str]
) -> None:
    with pytest.raises(InvalidValue) as refusal:
        create_key(ctx, by="tests", merchant_id=merchant_id, scopes=scopes)
    assert refusal.value.param == "scopes"


def test_a_key_for_nobody_or_for_the_past_is_refused(ctx: Context) -> None:
    with pytest.raises(InvalidValue) as nobody:
        create_key(ctx, by="tests", merchant_id="mer_nobody", scopes=MERCHANT_SCOPES)
    with pytest.raises(InvalidValue) as past:
        make_key(ctx, expires_at=ctx.now() - timedelta(seconds=1))
    assert (nobody.value.param, past.value.param) == ("merchant_id", "expires_at")
    assert list_keys(ctx) == []


def test_a_wrong_key_is_unknown_whatever_is_wrong_with_it(ctx: Context) -> None:
    _, key = make_key(ctx)
    _, other = make_key(ctx)
    head, public_id, secret = key.split("_", 2)
    wrong = [
        "",
        "sk_",
        key[:-1],
        key + "A",
        key.lower(),
        f" {key}",
        f"{key}\n",
        f"{head}_{public_id}_{'A' * 43}",
        f"{head}_{other.split('_')[1]}_{secret}",
        f"{head}_{'0' * 26}_{secret}",
        f"{head}_{public_id}_" + "ä" * 43,
        "x" * 100_000,
        f"{head}_' OR 1=1 --_{secret}",
    ]
    for text in wrong:
        with pytest.raises(Unauthorized) as refusal:
            authenticate(ctx, text)
        assert refusal.value.detail == "the API key is unknown", text
    assert authenticate(ctx, key)


def test_a_revoked_key_is_refused_from_the_next_request_on(ctx: Context) -> None:
    key_id, key = make_key(ctx)
    _, other = make_key(ctx)
    revoked = revoke_key(ctx, key_id, by="tests")
    with pytest.raises(Unauthorized, match="was revoked"):
        authenticate(ctx, key)
    assert authenticate(ctx, other)
    assert revoke_key(ctx, key_id, by="tests").revoked_at == revoked.revoked_at, "the first time stays"
    with pytest.raises(NotFound):
        revoke_key(ctx, "key_nothing", by="tests")


def test_an_expired_key_is_refused(ctx: Context) -> None:
    key_id, key = make_key(ctx, expires_at=ctx.now() + timedelta(hours=1))
    assert authenticate(ctx, key)
    set_key(ctx, key_id, expires_at=ctx.now() - timedelta(seconds=1))
    with pytest.raises(Unauthorized, match="has expired"):
        authenticate(ctx, key)


def test_only_who_knows_the_secret_learns_that_a_key_is_over(ctx: Context) -> None:
    key_id, key = make_key(ctx)
    revoke_key(ctx, key_id, by="tests")
    with pytest.raises(Unauthorized) as refusal:
        authenticate(ctx, key[:-43] + "A" * 43)
    assert refusal.value.detail == "the API key is unknown"


def test_its_use_is_written_down_at_most_once_in_five_minutes(ctx: Context) -> None:
    key_id, key = make_key(ctx)
    assert last_used(ctx, key_id) is None
    authenticate(ctx, key)
    first = last_used(ctx, key_id)
    assert first is not None
    authenticate(ctx, key)
    assert last_used(ctx, key_id) == first
    set_key(ctx, key_id, last_used_at=first - timedelta(minutes=5, seconds=1))
    authenticate(ctx, key)
    again = last_used(ctx, key_id)
    assert again is not None
    assert again >= first


def test_a_refused_key_is_not_written_down_as_used(ctx: Context) -> None:
    key_id, key = make_key(ctx)
    revoke_key(ctx, key_id, by="tests")
    with pytest.raises(Unauthorized):
        authenticate(ctx, key)
    assert last_used(ctx, key_id) is None


def test_many_requests_at_once_with_a_key_that_was_never_used_all_pass(ctx: Context) -> None:
    key_id, key = make_key(ctx)
    with ThreadPoolExecutor(8) as pool:
        identities = list(pool.map(lambda _: authenticate(ctx, key), range(40)))
    assert {identity.key_id for identity in identities} == {key_id}


def test_keys_are_listed_newest_first_in_pages(ctx: Context) -> None:
    made = [make_key(ctx)[0] for _ in range(4)]
    operators, _ = create_key(ctx, by="tests", merchant_id=None, scopes=["admin"])
    assert [key.id for key in list_keys(ctx)] == [operators, *reversed(made)]
    assert [key.id for key in list_keys(ctx, merchant_id=MERCHANT_ID, limit=2)] == [made[3], made[2]]
    assert [key.id for key in list_keys(ctx, merchant_id=MERCHANT_ID, limit=9, after=made[2])] == [made[1], made[0]]


def test_neither_keys_nor_secrets_are_logged(ctx: Context, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _, secret = create_merchant(ctx, by="tests", name="A")
    key_id, key = make_key(ctx)
    revoke_key(ctx, key_id, by="tests")
    with pytest.raises(Unauthorized):
        authenticate(ctx, key)
    assert key_id in caplog.text
    assert key not in caplog.text
    assert secret not in caplog.text
