"""Merchants and keys: shown once, stored so that the database alone opens nothing, and refused when they should be."""

import dataclasses
import hmac
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hmac import compare_digest

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook

from ctrip.context import Context
from ctrip.database.models import api_keys, merchants
from ctrip.domain.merchants import MERCHANT_SCOPES, Scope, is_same
from ctrip.errors import AddressRefused, Conflict, InvalidValue, MisconfiguredError, NotFound, Unauthorized
from ctrip.services import audit_log
from ctrip.services.merchants import authenticate, create_key, create_merchant, list_keys, revoke_key, rotate_key
from tests.conftest import MERCHANT_ID

pytestmark = pytest.mark.infra


def make_key(ctx: Context, expires_at: datetime | None = None, allowed_ips: list[str] | None = None) -> tuple[str, str]:
    limits = {"expires_at": expires_at, "allowed_ips": allowed_ips}
    return create_key(ctx, by="tests", merchant_id=MERCHANT_ID, scopes=["payments:read"], **limits)  # type: ignore[arg-type]


def set_key(ctx: Context, key_id: str, **values: object) -> None:
    """Change a key behind the process's back; a second passes."""
    with ctx.sessions.begin() as session:
        session.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(**values))
    ctx.recent.clear()


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
    identity = authenticate(ctx, key, address=None)
    assert (identity.key_id, identity.merchant_id) == (key_id, MERCHANT_ID)
    assert identity.scopes == {Scope.PAYMENTS_READ, Scope.WEBHOOKS_WRITE}


def test_an_operators_key_has_no_merchant(ctx: Context) -> None:
    _, key = create_key(ctx, by="tests", merchant_id=None, scopes=["admin"])
    identity = authenticate(ctx, key, address=None)
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
            authenticate(ctx, text, address=None)
        assert refusal.value.detail == "the API key is unknown", text
    assert authenticate(ctx, key, address=None)


def test_a_revoked_key_is_refused_from_the_next_request_on(ctx: Context) -> None:
    key_id, key = make_key(ctx)
    _, other = make_key(ctx)
    revoked = revoke_key(ctx, key_id, by="tests")
    with pytest.raises(Unauthorized, match="was revoked"):
        authenticate(ctx, key, address=None)
    assert authenticate(ctx, other, address=None)
    assert revoke_key(ctx, key_id, by="tests").revoked_at == revoked.revoked_at, "the first time stays"
    with pytest.raises(NotFound):
        revoke_key(ctx, "key_nothing", by="tests")


def test_an_expired_key_is_refused(ctx: Context) -> None:
    key_id, key = make_key(ctx, expires_at=ctx.now() + timedelta(hours=1))
    assert authenticate(ctx, key, address=None)
    set_key(ctx, key_id, expires_at=ctx.now() - timedelta(seconds=1))
    with pytest.raises(Unauthorized, match="has expired"):
        authenticate(ctx, key, address=None)


def test_only_who_knows_the_secret_learns_that_a_key_is_over(ctx: Context) -> None:
    key_id, key = make_key(ctx)
    revoke_key(ctx, key_id, by="tests")
    with pytest.raises(Unauthorized) as refusal:
        authenticate(ctx, key[:-43] + "A" * 43, address=None)
    assert refusal.value.detail == "the API key is unknown"


def test_its_use_is_written_down_at_most_once_in_five_minutes(ctx: Context) -> None:
    key_id, key = make_key(ctx)
    assert last_used(ctx, key_id) is None
    authenticate(ctx, key, address=None)
    first = last_used(ctx, key_id)
    assert first is not None
    authenticate(ctx, key, address=None)
    assert last_used(ctx, key_id) == first
    set_key(ctx, key_id, last_used_at=first - timedelta(minutes=5, seconds=1))
    authenticate(ctx, key, address=None)
    again = last_used(ctx, key_id)
    assert again is not None
    assert again >= first


def test_a_refused_key_is_not_written_down_as_used(ctx: Context) -> None:
    key_id, key = make_key(ctx)
    revoke_key(ctx, key_id, by="tests")
    with pytest.raises(Unauthorized):
        authenticate(ctx, key, address=None)
    assert last_used(ctx, key_id) is None


def test_many_requests_at_once_with_a_key_that_was_never_used_all_pass(ctx: Context) -> None:
    key_id, key = make_key(ctx)
    with ThreadPoolExecutor(8) as pool:
        identities = list(pool.map(lambda _: authenticate(ctx, key, address=None), range(40)))
    assert {identity.key_id for identity in identities} == {key_id}


@pytest.mark.parametrize(
    ("allowed", "address", "is_allowed"),
    [
        (["203.0.113.7"], "203.0.113.7", True),
        (["203.0.113.7"], "203.0.113.8", False),
        (["203.0.113.0/24", "2001:db8::/32"], "203.0.113.255", True),
        (["203.0.113.0/24", "2001:db8::/32"], "2001:db8:1::9", True),
        (["203.0.113.0/24", "2001:db8::/32"], "2001:db9::", False),
        (["203.0.113.0/24"], "::ffff:203.0.113.9", True),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["203.0.113.7"], None, False),
        (["203.0.113.7"], "unix:", False),
        (None, None, True),
    ],
)
def test_a_key_works_from_where_it_may_alone(
    ctx: Context, allowed: list[str] | None, address: str | None, is_allowed: bool
) -> None:
    key_id, key = make_key(ctx, allowed_ips=allowed)
    if is_allowed:
        assert authenticate(ctx, key, address=address).key_id == key_id
        return
    with pytest.raises(AddressRefused, match="may not be used from"):
        authenticate(ctx, key, address=address)
    assert last_used(ctx, key_id) is None
    with pytest.raises(Unauthorized, match="unknown"):
        authenticate(ctx, key[:-43] + "A" * 43, address=address)


@pytest.mark.parametrize(
    ("allowed", "why"),
    [
        ([], "1 to 50 networks"),
        ([f"10.0.0.{number}" for number in range(51)], "1 to 50 networks"),
        (["203.0.113.7/24"], r"do you mean 203\.0\.113\.0/24"),
        (["shop.example"], "write an address or a network"),
        (["203.0.113.7", ""], "write an address or a network"),
        (["10.0.0.0/33"], "write an address or a network"),
        (["10.0.0.1/0"], "write an address or a network"),
        (["::ffff:203.0.113.7"], "write it as IPv4"),
    ],
)
def test_what_is_no_network_is_refused_and_says_what_would_be_one(ctx: Context, allowed: list[str], why: str) -> None:
    with pytest.raises(InvalidValue, match=why) as refusal:
        make_key(ctx, allowed_ips=allowed)
    assert refusal.value.param == "allowed_ips"


def test_a_key_that_was_rotated_works_for_a_day_beside_the_one_that_took_its_place(ctx: Context) -> None:
    old_id, old = make_key(ctx, allowed_ips=["203.0.113.7"])
    new_id, new = rotate_key(ctx, old_id, by="tests")
    whose = [authenticate(ctx, key, address="203.0.113.7") for key in (old, new)]
    assert [identity.key_id for identity in whose] == [old_id, new_id]
    assert whose[0].scopes == whose[1].scopes and whose[0].merchant_id == whose[1].merchant_id
    with pytest.raises(AddressRefused):
        authenticate(ctx, new, address="203.0.113.8")
    young, former = list_keys(ctx)
    assert (former.replaced_by, young.replaced_by, young.expires_at) == (new_id, None, None)
    assert former.expires_at is not None
    assert timedelta(hours=23, minutes=59) < former.expires_at - ctx.now() <= timedelta(hours=24)
    with pytest.raises(Conflict, match=f"{new_id} has taken its place"):
        rotate_key(ctx, old_id, by="tests")


def test_a_rotated_key_lives_as_long_as_the_one_before_and_ends_that_no_later_than_it_did(ctx: Context) -> None:
    old_id, _ = make_key(ctx, expires_at=ctx.now() + timedelta(hours=30))
    set_key(ctx, old_id, expires_at=ctx.now() + timedelta(hours=2), created_at=ctx.now() - timedelta(days=28))
    rotate_key(ctx, old_id, by="tests")
    young, former = list_keys(ctx)
    assert young.expires_at is not None and former.expires_at is not None
    assert abs(young.expires_at - ctx.now() - timedelta(days=28, hours=2)) < timedelta(minutes=1)
    assert former.expires_at - ctx.now() < timedelta(hours=2)
    named = ctx.now() + timedelta(days=7)
    rotate_key(ctx, young.id, by="tests", expires_at=named)
    assert list_keys(ctx)[0].expires_at == named


def test_a_key_whose_successor_was_revoked_is_rotated_again(ctx: Context) -> None:
    old_id, old = make_key(ctx)
    first_id, _ = rotate_key(ctx, old_id, by="tests", overlap=timedelta(hours=2))
    revoke_key(ctx, first_id, by="tests")
    second_id, second = rotate_key(ctx, old_id, by="tests")
    assert [authenticate(ctx, key, address=None).key_id for key in (old, second)] == [old_id, second_id]
    young, _, former = list_keys(ctx)
    assert (young.expires_at, former.replaced_by) == (None, second_id), "for ever, as the first was made for"
    assert former.expires_at is not None
    assert former.expires_at - ctx.now() <= timedelta(hours=2), "no longer than it had been given"
    with pytest.raises(Conflict, match=f"{second_id} has taken its place"):
        rotate_key(ctx, old_id, by="tests")


def test_a_key_has_one_live_successor_at_a_time_however_long_the_line_is(ctx: Context) -> None:
    old_id, _ = make_key(ctx, expires_at=ctx.now() + timedelta(days=30))
    first_id, _ = rotate_key(ctx, old_id, by="tests")
    second_id, _ = rotate_key(ctx, first_id, by="tests")
    revoke_key(ctx, first_id, by="tests")
    with pytest.raises(Conflict, match=f"{second_id} has taken its place"):
        rotate_key(ctx, old_id, by="tests")
    set_key(ctx, second_id, expires_at=ctx.now() - timedelta(days=1), created_at=ctx.now() - timedelta(days=31))
    rotate_key(ctx, old_id, by="tests")
    ends_at = list_keys(ctx)[0].expires_at
    assert ends_at is not None
    assert abs(ends_at - ctx.now() - timedelta(days=30)) < timedelta(minutes=1)


@pytest.mark.parametrize("overlap", [timedelta(0), timedelta(minutes=5), timedelta(days=7)])
def test_how_long_both_keys_work_is_for_whoever_rotates_to_say(ctx: Context, overlap: timedelta) -> None:
    old_id, old = make_key(ctx)
    _, new = rotate_key(ctx, old_id, by="tests", overlap=overlap)
    assert authenticate(ctx, new, address=None)
    young, former = list_keys(ctx)
    assert former.expires_at is not None
    assert former.expires_at - young.created_at == overlap
    assert former.is_expired == (overlap == timedelta(0))
    if overlap:
        assert authenticate(ctx, old, address=None)
    else:
        with pytest.raises(Unauthorized, match="has expired"):
            authenticate(ctx, old, address=None)


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=7, seconds=1)])
def test_an_overlap_is_a_week_at_most(ctx: Context, overlap: timedelta) -> None:
    old_id, _ = make_key(ctx)
    with pytest.raises(InvalidValue) as refusal:
        rotate_key(ctx, old_id, by="tests", overlap=overlap)
    assert refusal.value.param == "overlap_seconds"
    assert len(list_keys(ctx)) == 1


def test_a_rotation_may_change_from_where_a_key_is_used(ctx: Context) -> None:
    old_id, old = make_key(ctx, allowed_ips=["203.0.113.7"])
    _, new = rotate_key(ctx, old_id, by="tests", allowed_ips=["198.51.100.0/24"])
    assert authenticate(ctx, old, address="203.0.113.7") and authenticate(ctx, new, address="198.51.100.1")
    for key, address in ((old, "198.51.100.1"), (new, "203.0.113.7")):
        with pytest.raises(AddressRefused):
            authenticate(ctx, key, address=address)
    with pytest.raises(InvalidValue):
        rotate_key(ctx, list_keys(ctx)[0].id, by="tests", allowed_ips=[])


@pytest.mark.parametrize("wrong_by", [timedelta(days=-3), timedelta(days=3)])
def test_a_process_whose_clock_is_wrong_makes_keys_by_that_of_the_database(ctx: Context, wrong_by: timedelta) -> None:
    wrong = dataclasses.replace(ctx, now=lambda: ctx.now() + wrong_by)
    key_id, key = make_key(wrong, expires_at=ctx.now() + timedelta(hours=30))
    _, new = rotate_key(wrong, key_id, by="tests")
    young, former = list_keys(wrong)
    for moment in (young.created_at, former.created_at):
        assert abs(moment - ctx.now()) < timedelta(minutes=1)
    assert former.expires_at is not None
    assert abs(former.expires_at - ctx.now() - timedelta(hours=24)) < timedelta(minutes=1)
    assert authenticate(wrong, key, address=None) and authenticate(wrong, new, address=None)
    with pytest.raises(InvalidValue, match="in the past"):
        make_key(wrong, expires_at=ctx.now() - timedelta(minutes=1))


def test_all_that_is_done_to_keys_stands_in_the_audit_log(ctx: Context) -> None:
    first_id, _ = make_key(ctx, expires_at=datetime(2036, 1, 1, tzinfo=UTC), allowed_ips=["203.0.113.7"])
    second_id, _ = rotate_key(ctx, first_id, by="one", allowed_ips=["203.0.113.8"], overlap=timedelta(0))
    revoke_key(ctx, second_id, by="two")
    revoke_key(ctx, second_id, by="three")
    revoked, rotated, created = audit_log.matching(ctx, action="keys.", limit=9)
    assert (revoked.by, revoked.action, revoked.target) == ("two", "keys.revoke", second_id)
    assert (rotated.by, rotated.action, rotated.target) == ("one", "keys.rotate", first_id)
    assert (rotated.detail["replaced_by"], rotated.detail["allowed_ips"]) == (second_id, ["203.0.113.8/32"])
    assert (created.detail["expires_at"], created.detail["allowed_ips"]) == (
        "2036-01-01T00:00:00Z",
        ["203.0.113.7/32"],
    )


def test_every_key_is_compared_once_known_or_not(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    key_id, key = make_key(ctx)
    revoked_id, revoked = make_key(ctx)
    revoke_key(ctx, revoked_id, by="tests")
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare_digest(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    head, public_id, secret = key.split("_", 2)
    unknown = f"{head}_{'0' * 26}_{secret}"
    for text in (key, f"{head}_{public_id}_{'A' * 43}", unknown, revoked, "sk_1_2", ""):
        compared.clear()
        with suppress(Unauthorized):
            assert authenticate(ctx, text, address=None).key_id == key_id
        assert compared == [(32, 32)], text
    assert not is_same(bytes(32), None), "what is compared where there is nothing is nobody's"


def test_a_key_that_has_ended_is_not_rotated(ctx: Context) -> None:
    revoked, expired, live = (make_key(ctx)[0] for _ in range(3))
    revoke_key(ctx, revoked, by="tests")
    set_key(ctx, expired, expires_at=ctx.now() - timedelta(seconds=1))
    for ended in (revoked, expired):
        with pytest.raises(Conflict, match="has ended"):
            rotate_key(ctx, ended, by="tests")
    with pytest.raises(InvalidValue, match="in the past"):
        rotate_key(ctx, live, by="tests", expires_at=ctx.now() - timedelta(seconds=1))
    with pytest.raises(NotFound):
        rotate_key(ctx, "key_nothing", by="tests")


def test_of_many_who_rotate_a_key_at_once_one_gets_another(ctx: Context) -> None:
    old_id, _ = make_key(ctx)

    def rotate(_: int) -> bool:
        try:
            rotate_key(ctx, old_id, by="tests")
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(rotate, range(8))) == 1
    assert len(list_keys(ctx)) == 2


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
        authenticate(ctx, key, address=None)
    assert key_id in caplog.text
    assert key not in caplog.text
    assert secret not in caplog.text
