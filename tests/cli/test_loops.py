"""`ctrip loops`, `ctrip queues` and `ctrip jobs`: what runs, what waits, and what was asked for."""

import getpass
from datetime import timedelta

import pytest

from ctrip.context import Context
from ctrip.domain.jobs import Done
from ctrip.domain.queues import QueueSnapshot
from ctrip.runs import run_job
from ctrip.services import jobs
from ctrip.services.loops import ensure_loops
from ctrip.services.queues import store_snapshots
from tests.tool import Tool

pytestmark = pytest.mark.infra

LISTENER = "listener:31337"


def test_a_loop_is_paused_and_resumed_and_made_to_run(ctrip: Tool, ctx: Context) -> None:
    ensure_loops(ctx)
    assert ctrip("loops", "pause", LISTENER).out.startswith(f"{LISTENER} is paused")
    enabled = {loop["name"]: loop["enabled"] for loop in ctrip("loops", "--json").json}
    assert enabled == {LISTENER: False, "balances:31337": True, "sweeper:31337": True}
    refused = ctrip("loops", "run", LISTENER)
    assert (refused.code, "paused" in refused.err) == (1, True)
    assert ctrip("loops", "resume", LISTENER).out == f"{LISTENER} runs again\n"
    assert ctrip("loops", "run", LISTENER).out == f"{LISTENER} runs within two seconds\n"
    deeds = ctrip("audit-log", "--json").json
    assert {(deed["by"], deed["action"]) for deed in deeds} == {
        (f"cli:{getpass.getuser()}", f"loops.{verb}") for verb in ("pause", "resume", "run")
    }


@pytest.mark.parametrize("verb", ["pause", "resume", "run"])
def test_a_loop_that_there_is_not_is_an_error(ctrip: Tool, ctx: Context, verb: str) -> None:
    ran = ctrip("loops", verb, "listener:7")
    assert (ran.code, ran.err) == (1, "ctrip: there is no loop 'listener:7'\n")


def test_a_snapshot_that_is_old_is_marked(ctrip: Tool, ctx: Context) -> None:
    fresh = QueueSnapshot("webhook", 5, 2, 9, 0, 77, 1.5, 3, ctx.now())
    store_snapshots(ctx, [fresh])
    assert ctrip("queues").err == ""
    store_snapshots(ctx, [QueueSnapshot("email", 0, 0, 0, 0, 0, None, 1, ctx.now() - timedelta(seconds=75))])
    for arguments in ((), ("--json",)):
        ran = ctrip("queues", *arguments)
        assert "email: seen 75 s ago" in ran.err
        assert "webhook" not in ran.err
    assert [queue["queue"] for queue in ctrip("queues", "--json").json] == ["email", "webhook"]


def test_jobs_are_listed_and_shown_with_their_result(ctrip: Tool, ctx: Context) -> None:
    assert ctrip("jobs", "list").out == "jobs: none\n"
    scan = str(jobs.scan_now(ctx, chain="anvil", by="key_1")["id"])
    sweep = str(jobs.sweep_now(ctx, chain="anvil", by="key_1")["id"])
    run_job(ctx, scan, work=lambda _: Done({"blocks_read": 7}))
    assert [job["id"] for job in ctrip("jobs", "list", "--json").json] == [sweep, scan]
    assert scan in ctrip("jobs", "list", "--status", "done").out
    assert [job["id"] for job in ctrip("jobs", "list", "--kind", "sweep-now", "--json").json] == [sweep]
    shown = ctrip("jobs", "show", scan).out
    assert "scan-now" in shown
    assert '"blocks_read": 7' in shown
    assert ctrip("jobs", "show", scan, "--json").json["result"] == {"blocks_read": 7}
    assert ctrip("jobs", "show", "job_1").code == 1
