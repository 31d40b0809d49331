"""`ctrip dlq` and `ctrip audit-log`: what an operator sees at three in the morning, and what the tool writes."""

import getpass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.models import dead_letters as rows
from ctrip.domain.dead_letters import DeadLetter, Reason
from ctrip.services import dead_letters
from tests.tool import Tool

pytestmark = pytest.mark.infra


def bury(ctx: Context, name: str, *, age: timedelta = timedelta(0), **changes: Any) -> None:
    died = ctx.now() - age
    values: dict[str, Any] = {
        "queue": "webhook",
        "actor": "send_webhook",
        "message": f'{{"args":["{name}"]}}',
        "message_id": name,
        "reason": Reason.RETRIES,
        "exception": "ValueError: no",
        "traceback": "Traceback (most recent call last):\n  in f\nValueError: no",
        "row_id": f"whd_{name}",
        "first_at": died,
        "died_at": died,
    }
    dead_letters.record(ctx, DeadLetter(**values | changes))


def states(ctx: Context) -> dict[str, str]:
    with ctx.sessions.begin() as session:
        found = session.execute(sa.select(rows.c.message_id, rows.c.replay_requested_at, rows.c.purged_at))
        return {name: "purged" if purged else "asked" if asked else "open" for name, asked, purged in found}


def test_letters_are_listed_with_what_tells_them_apart_each_in_a_line(ctrip: Tool, ctx: Context) -> None:
    bury(ctx, "one", exception="HTTP 500 \x1b[2J")
    bury(ctx, "two", queue="sweeper", actor="sweep_payments", reason=Reason.POISON, exception=None)
    newest, oldest = ctrip("dlq", "list", "--json").json
    assert (newest["args"], oldest["args"]) == (["two"], ["one"])
    title, heads, *lines = ctrip("dlq", "list").out.splitlines()
    assert title.strip() == "dead letters"
    assert heads.split() == ["id", "died", "at", "queue", "actor", "row", "reason", "state", "exception"]
    assert [line.split()[0] for line in lines] == [newest["id"], oldest["id"]]
    assert "HTTP 500 ·[2J" in lines[1]


def test_one_letter_is_shown_with_its_traceback_and_its_state(ctrip: Tool, ctx: Context) -> None:
    bury(ctx, "one")
    (letter,) = ctrip("dlq", "list", "--json").json
    shown = ctrip("dlq", "show", letter["id"])
    assert "  Traceback (most recent call last):\n    in f\n  ValueError: no\n" in shown.out
    assert "whd_one" in shown.out
    assert ctrip("dlq", "show", letter["id"], "--json").json == letter


def test_a_message_that_cannot_be_read_is_shown_as_it_came(ctrip: Tool, ctx: Context) -> None:
    bury(ctx, "torn", message='{"args":[\x1b', reason=Reason.UNDECODABLE)
    (letter,) = ctrip("dlq", "list", "--json").json
    assert '{"args":[·' in ctrip("dlq", "show", letter["id"]).out
    ran = ctrip("dlq", "replay", "--all")
    assert (
        ran.out
        == "1 match, 0 will be sent again\n1 cannot be sent: nobody can read their messages (--reason undecodable)\n"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "abc"),
        (("--queue", "webhook"), "ab"),
        (("--actor", "sweep_payments"), "c"),
        (("--reason", "poison"), "b"),
        (("--exception", "KeyError"), "b"),
        (("--text", "WHD_A"), "a"),
        (("--older-than", "30m"), "bc"),
        (("--older-than", "1d"), "c"),
        (("--newer-than", "12h", "--older-than", "1s"), "b"),
        (("--state", "purged"), ""),
    ],
)
def test_the_same_options_say_which_letters_are_listed_replayed_and_purged(
    ctrip: Tool, ctx: Context, options: tuple[str, ...], expected: str
) -> None:
    bury(ctx, "a")
    bury(ctx, "b", age=timedelta(hours=2), reason=Reason.POISON, exception="KeyError: 1")
    bury(ctx, "c", age=timedelta(days=2), queue="sweeper", actor="sweep_payments")
    assert {letter["args"][0] for letter in ctrip("dlq", "list", *options, "--json").json} == set(expected)
    if "--state" in options:
        return
    which = options or ("--all",)
    for act, would in (("replay", "would be sent again"), ("purge", "would be purged")):
        assert ctrip("dlq", act, *which, "--dry-run").out == f"{len(expected)} match, {len(expected)} {would}\n"
    assert ctrip("dlq", "purge", *which).out == f"{len(expected)} match, {len(expected)} purged\n"
    assert {name for name, state in states(ctx).items() if state == "purged"} == set(expected)


def test_letters_are_named_by_their_ids(ctrip: Tool, ctx: Context) -> None:
    for name in "abc":
        bury(ctx, name)
    ids = {letter["args"][0]: letter["id"] for letter in ctrip("dlq", "list", "--json").json}
    assert ctrip("dlq", "replay", ids["a"], ids["b"]).out == "2 match, 2 will be sent again\n"
    assert ctrip("dlq", "purge", ids["b"], ids["c"]).out == "1 match, 1 purged\n"
    assert states(ctx) == {"a": "asked", "b": "asked", "c": "purged"}
    assert [letter["args"] for letter in ctrip("dlq", "list", ids["a"], "--json").json] == [["a"]]
    assert "replay asked" in ctrip("dlq", "list", ids["a"]).out


def test_who_did_what_is_listed(ctrip: Tool, ctx: Context) -> None:
    bury(ctx, "a")
    ctrip("dlq", "replay", "--queue", "webhook")
    ctrip("merchants", "create", "--name", "Another")
    key = ctrip("keys", "create", "--operator", "--out", "/dev/null", "--json")
    assert key.code != 0, "no key, and nothing to tell"
    ctrip("wallet", "advance", "3")
    me = f"cli:{getpass.getuser()}"
    deeds = ctrip("audit-log", "--json").json
    assert [(deed["by"], deed["action"]) for deed in deeds] == [
        (me, "wallet.advance"),
        (me, "merchants.create"),
        (me, "dead_letters.replay"),
    ]
    assert deeds[0]["detail"]["count"] == 3
    assert [deed["action"] for deed in ctrip("audit-log", "--action", "dead_letters", "--json").json] == [
        "dead_letters.replay"
    ]
    told = ctrip("audit-log", "--by", me, "--limit", "1", "--after", deeds[1]["id"]).out
    assert '{"filter": {"queue": "webhook"}, "matched": 1, "done": 1}' in told
    assert ctrip("audit-log", "--by", "nobody").out == "audit log: none\n"


WHICH = "say which: ids, --queue, --actor, --reason, --exception, an age or --text; or --all"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["replay"], WHICH),
        (["purge", "--dry-run"], WHICH),
        (["show", "dlt_nothing"], "ctrip: no dead letter dlt_nothing"),
        (["purge", "--older-than", "7"], "'7' is no age such as 30m, 12h or 7d"),
        (["list", "--newer-than", "9999999d"], "'9999999d' is no age such as 30m, 12h or 7d"),
        (["replay", *(["dlt_x"] * 1001)], "1000 ids at a time"),
    ],
)
def test_a_mistake_is_one_message_and_no_traceback(ctrip: Tool, args: list[str], words: str) -> None:
    ran = ctrip("dlq", *args)
    assert ran.code != 0
    assert ran.out == ""
    assert words in ran.err
    assert "Traceback" not in ran.err
