"""Dead letters over HTTP, and the audit log of what was done with them."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.models import dead_letters as letter_rows
from ctrip.domain.dead_letters import MOST_IDS, DeadLetter, Reason, State
from ctrip.services import dead_letters
from ctrip.web.admin.dead_letters import AT_MOST
from ctrip.web.schemas.dead_letters import DeathReason, LetterState
from tests.api import Api, problem

pytestmark = pytest.mark.infra

DIED = datetime(2026, 11, 22, 12, tzinfo=UTC)
LETTERS = "/admin/dead-letters"
UNKNOWN = "dlt_01ARZ3NDEKTSV4RRFFQ69G5FAV"


def bury(ctx: Context, name: str, **changes: Any) -> None:
    values = {
        "queue": "webhook",
        "actor": "send_webhook",
        "message": f'{{"args": ["{name}"]}}',
        "message_id": name,
        "reason": Reason.RETRIES,
        "exception": "ValueError: bad",
        "traceback": "…",
        "row_id": None,
        "first_at": DIED,
        "died_at": DIED,
    }
    dead_letters.record(ctx, DeadLetter(**values | changes))


def listed(operator: Api, query: str = "") -> list[Any]:
    return [letter["args"][0] for letter in operator.get(f"{LETTERS}?{query}").json["data"]]


def test_dead_letters_are_listed_page_by_page_and_shown_one_by_one(operator: Api, api_ctx: Context) -> None:
    for name in ("one", "two", "three"):
        bury(api_ctx, name)
    first = operator.get(f"{LETTERS}?limit=2").json
    rest = operator.get(f"{LETTERS}?limit=2&starting_after={first['next_cursor']}").json
    assert [letter["args"] for letter in first["data"] + rest["data"]] == [["three"], ["two"], ["one"]]
    (oldest,) = rest["data"]
    assert operator.get(f"{LETTERS}/{oldest['id']}").json == oldest
    assert (oldest["state"], oldest["replayable"], oldest["purged_at"]) == ("open", True, None)


def test_a_list_is_filtered_by_whatever_an_operator_knows(operator: Api, api_ctx: Context) -> None:
    now = datetime.now(UTC)
    bury(api_ctx, "one", died_at=now)
    bury(api_ctx, "two", died_at=now - timedelta(hours=2), exception="KeyError: 'ü'", reason=Reason.POISON)
    bury(api_ctx, "three", queue="sweeper", actor="sweep_payments", died_at=now - timedelta(days=2))
    found = {
        query: set(listed(operator, query))
        for query in (
            "queue=sweeper&reason=retries",
            "actor=send_webhook",
            "exception=KeyError",
            "reason=poison",
            "older_than=3600",
            "newer_than=3600",
            "older_than=3600&newer_than=86400",
            "q=%C3%BC",
            "state=open",
            "state=purged",
            "q=nothing-like-it",
        )
    }
    assert list(found.values()) == [
        {"three"},
        {"one", "two"},
        {"two"},
        {"two"},
        {"two", "three"},
        {"one"},
        {"two"},
        {"two"},
        {"one", "two", "three"},
        set(),
        set(),
    ]
    ids = [letter["id"] for letter in operator.get(LETTERS).json["data"]]
    assert listed(operator, f"ids={ids[0]}&ids={ids[2]}&ids={UNKNOWN}") == ["one", "three"], "who died last comes first"


@pytest.mark.parametrize(("act", "mark"), [("replay", "replay_requested_at"), ("purge", "purged_at")])
def test_letters_are_acted_on_by_a_filter_after_a_dry_run_that_says_how_many(
    operator: Api, api_ctx: Context, act: str, mark: str
) -> None:
    for name in ("one", "two"):
        bury(api_ctx, name)
    bury(api_ctx, "three", queue="sweeper", actor="sweep_payments")
    wanted = {"filter": {"queue": "webhook", "reason": "retries"}}
    assert operator.post(f"{LETTERS}/{act}", wanted | {"dry_run": True}).json == {"matched": 2, "done": 0}
    assert operator.post(f"{LETTERS}/{act}", wanted).json == {"matched": 2, "done": 2}
    assert operator.post(f"{LETTERS}/{act}", wanted).json == {"matched": 0, "done": 0}
    with api_ctx.sessions.begin() as session:
        marked = session.scalars(sa.select(letter_rows.c.message_id).where(letter_rows.c[mark].is_not(None))).all()
    assert set(marked) == {"one", "two"}
    (three,) = operator.get(f"{LETTERS}?queue=sweeper").json["data"]
    assert operator.post(f"{LETTERS}/{act}", {"filter": {"ids": [three["id"]]}}).json == {"matched": 1, "done": 1}
    assert operator.post(f"{LETTERS}/{act}", {"filter": {"ids": [UNKNOWN]}}).json == {"matched": 0, "done": 0}


def test_a_purged_letter_is_out_of_the_list_and_can_be_read(operator: Api, api_ctx: Context) -> None:
    bury(api_ctx, "one")
    (letter,) = operator.get(LETTERS).json["data"]
    operator.post(f"{LETTERS}/purge", {"filter": {}})
    assert operator.get(LETTERS).json["data"] == []
    purged = operator.get(f"{LETTERS}/{letter['id']}").json
    assert (purged["state"], purged["replayable"]) == ("purged", False)
    assert operator.get(f"{LETTERS}?state=purged").json["data"] == [purged]


def test_a_letter_that_cannot_be_read_is_told_as_such_and_not_replayed(operator: Api, api_ctx: Context) -> None:
    bury(api_ctx, "torn", reason=Reason.UNDECODABLE, message="no JSON")
    bury(api_ctx, "deep", reason=Reason.UNDECODABLE, message="[" * 200_000)
    assert [(each["args"], each["replayable"]) for each in operator.get(LETTERS).json["data"]] == [(None, False)] * 2
    assert operator.post(f"{LETTERS}/replay", {"filter": {}}).json == {"matched": 2, "done": 0}


def test_arguments_are_shown_as_they_are(operator: Api, api_ctx: Context) -> None:
    bury(api_ctx, "odd", message=f'{{"args":[{2**200},[],{{}},"zw\\u00f6lf",null,NaN]}}')
    assert operator.get(LETTERS).json["data"][0]["args"] == [2**200, [], {}, "zwölf", None, "NaN"]


def test_a_request_does_so_much_at_most_and_is_asked_again(operator: Api, api_ctx: Context) -> None:
    with api_ctx.sessions.begin() as session:
        session.execute(
            sa.text(
                "INSERT INTO dead_letters (id, queue, actor, message, message_id, reason, first_at) "
                "SELECT 'dlt_' || n, 'webhook', 'send_webhook', '{}', n, 'retries', now() FROM generate_series(1, :n) n"
            ),
            {"n": AT_MOST + 5},
        )
    body: dict[str, Any] = {"filter": {}}
    assert operator.post(f"{LETTERS}/purge", body).json == {"matched": AT_MOST + 5, "done": AT_MOST}
    assert operator.post(f"{LETTERS}/purge", body).json == {"matched": 5, "done": 5}


def test_who_did_it_stands_in_the_audit_log(operator: Api, shop: Api, api_ctx: Context) -> None:
    for name in ("one", "two"):
        bury(api_ctx, name)
    keys = {key["merchant_id"]: key["id"] for key in operator.get("/admin/keys").json["data"]}
    me = keys[None]
    operator.post(f"{LETTERS}/replay", {"filter": {"q": "one"}})
    operator.post(f"{LETTERS}/purge", {"filter": {"reason": "retries"}})
    for _ in range(2):
        operator.send("DELETE", f"/admin/keys/{keys[shop.merchant_id]}")
    made = operator.post("/admin/merchants", {"name": "Another shop"}).json["id"]
    key = operator.post("/admin/keys", {"scopes": ["admin"]}).json["id"]
    page = operator.get(f"/admin/audit-log?by={me}")
    assert [(deed["by"], deed["action"], deed["target"], deed["detail"]) for deed in page.json["data"]] == [
        (me, "keys.create", key, {"merchant_id": None, "scopes": ["admin"], "allowed_ips": None, "expires_at": None}),
        (me, "merchants.create", made, {"name": "Another shop"}),
        (me, "keys.revoke", keys[shop.merchant_id], {}),
        (me, "dead_letters.purge", None, {"filter": {"reason": "retries"}, "matched": 1, "done": 1}),
        (me, "dead_letters.replay", None, {"filter": {"q": "one"}, "matched": 1, "done": 1}),
    ]
    assert "sk_" not in page.text and "whsec_" not in page.text
    letters = operator.get("/admin/audit-log?action=dead_letters.&limit=1").json
    assert [deed["action"] for deed in letters["data"]] == ["dead_letters.purge"]
    rest = operator.get(f"/admin/audit-log?action=dead_letters.&starting_after={letters['next_cursor']}").json
    assert [deed["action"] for deed in rest["data"]] == ["dead_letters.replay"]
    assert operator.get("/admin/audit-log?by=nobody").json["data"] == []


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "filter"),
    ({"filter": {"queues": "webhook"}}, "filter"),
    ({"filter": {"ids": ["1"]}}, "filter"),
    ({"filter": {"ids": [UNKNOWN] * (MOST_IDS + 1)}}, "filter"),
    ({"filter": {"older_than": "60"}}, "filter"),
    ({"filter": {"older_than": -1}}, "filter"),
    ({"filter": {"newer_than": 10**9}}, "filter"),
    ({"filter": {"state": "lost"}}, "filter"),
    ({"filter": {}, "dry_run": "yes"}, "dry_run"),
]


@pytest.mark.parametrize("act", ["replay", "purge"])
@pytest.mark.parametrize(("body", "param"), REFUSED, ids=[str(c[0])[:60] for c in REFUSED])
def test_what_an_operator_mistypes_is_refused(operator: Api, act: str, body: dict[str, Any], param: str) -> None:
    assert problem(operator.post(f"{LETTERS}/{act}", body)) == (422, "invalid_value", param)


@pytest.mark.parametrize(
    "query", ["reason=tired", "limit=0", "q=%00", "starting_after=1", "colour=red", "older_than=1h", "ids=1", "state=x"]
)
def test_a_filter_that_means_nothing_is_refused(operator: Api, query: str) -> None:
    assert problem(operator.get(f"{LETTERS}?{query}"))[:2] == (422, "invalid_value")


def test_every_word_of_the_domain_can_be_asked_for() -> None:
    assert set(get_args(DeathReason)) == set(Reason)
    assert set(get_args(LetterState)) == set(State)
