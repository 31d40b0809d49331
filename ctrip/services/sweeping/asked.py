"""What operators ask the sweeper for: a tick now, or the sweep of one address, by the same intents as all else."""

from datetime import timedelta

from ctrip import runs
from ctrip.context import Context
from ctrip.database import intents, sweeps
from ctrip.domain.addresses import NATIVE, hex_text, parse_address
from ctrip.domain.chains import Chain
from ctrip.domain.jobs import Done, Facts, Failed, Later, Outcome
from ctrip.domain.loops import LoopKind, Tick
from ctrip.domain.money import format_amount
from ctrip.domain.sweeps import Attempt, HeldReason, Intent, IntentState
from ctrip.runs import JobRun, run_job, run_loop_for
from ctrip.services.sweeping.planning import plan_asked
from ctrip.services.sweeping.run import Run
from ctrip.services.sweeping.ticking import tick

SOON = timedelta(milliseconds=500)
"""When a job looks again whether the loop is free: a tick takes about so long."""
LOOK_EVERY = timedelta(seconds=1)
SHOWN = 100
"""The most intents of one outcome that a result lists."""
_SHOWN_ALWAYS = ("planned", "signed", "sent", "mined", "done", "held")
_PASSES = (
    HeldReason.FEE_CEILING,
    HeldReason.GAS_WALLET_EMPTY,
    HeldReason.UNCOVERED,
    HeldReason.NODE_REFUSES,
)
"""What holds a sweep for a while. Everything else waits for a human, or for the value of coin to change."""


def sweep_now(ctx: Context, job_id: str) -> Tick:
    """Make a tick of the sweeper for a job, also when none is due. The job says what became of the chain's sweeps."""
    return run_job(ctx, job_id, work=_sweep_chain)


def sweep_address(ctx: Context, job_id: str) -> Tick:
    """Sweep one token at one address for a job, also below its threshold. The job is over when the sweep is final.

    A sweep that is under way there, or was when it was asked for, is the one that is waited for: asking twice moves
    nothing twice.
    """
    return run_job(ctx, job_id, work=_sweep_address)


def _sweep_chain(job: JobRun) -> Outcome:
    chain, _ = job.chain_and_cursor()
    told = run_loop_for(job, LoopKind.SWEEPER, chain.chain_id, work=lambda loop: (loop.chain.poll, tick(loop)))
    if told is None:
        return Later(SOON, {})
    outcomes = (*_SHOWN_ALWAYS, *(outcome for outcome, _ in told))
    with job.ctx.sessions.begin() as session:
        still_open = intents.count_open(session, chain.chain_id)
    by_outcome = {name: [facts for outcome, facts in told if outcome == name][:SHOWN] for name in outcomes}
    return Done(by_outcome | {"under_way": still_open})


def _sweep_address(job: JobRun) -> Outcome:
    chain, _ = job.chain_and_cursor()
    if job.progress is None or "sweep_id" not in job.progress:
        return _begin(job, chain)
    with job.ctx.sessions.begin() as session:
        intent, attempts = intents.find(session, job.progress["sweep_id"])
    return _judge(intent, attempts, chain=chain)


def _begin(job: JobRun, chain: Chain) -> Outcome:
    """Plan the sweep in a tick, which takes it on at once, and remember which it is."""
    token = NATIVE if job.params["token_address"] is None else parse_address(job.params["token_address"])
    address = parse_address(job.params["address"])

    def first(run: Run) -> None:
        plan_asked(run, address=address, token=token)
        with job.storing() as session:
            since = job.claim.job.created_at
            intent = sweeps.under_way(session, chain.chain_id, address=address, token=token, since=since)
            if intent is not None:
                job.note(session, {"sweep_id": intent.id, "state": str(intent.state)})

    def work(loop: runs.Run) -> tuple[timedelta, bool]:
        tick(loop, first=first)
        return loop.chain.poll, True

    if run_loop_for(job, LoopKind.SWEEPER, chain.chain_id, work=work) is None:
        return Later(SOON, job.progress or {})
    if job.progress is None or "sweep_id" not in job.progress:
        return Failed("nothing final at this address: no money is there that no sweep took")
    return Later(timedelta(0), job.progress)


def _judge(intent: Intent, attempts: list[Attempt], *, chain: Chain) -> Outcome:
    facts = _facts(intent, attempts, chain=chain)
    if intent.state is IntentState.DONE:
        return Done(facts)
    if intent.state is IntentState.FAILED:
        return Failed(f"{intent.id} was mined but moved nothing: {intent.failure}")
    if intent.state is IntentState.HELD and intent.held_reason not in _PASSES:
        return Failed(f"{intent.id} is held: {intent.held_reason}" + (f" ({intent.failure})" if intent.failure else ""))
    return Later(max(LOOK_EVERY, chain.poll), facts)


def _facts(intent: Intent, attempts: list[Attempt], *, chain: Chain) -> Facts:
    token = chain.token_at(intent.token) or chain.native
    tx_hash = intent.mined_tx_hash or (attempts[-1].tx_hash if attempts else None)
    return {
        "sweep_id": intent.id,
        "state": str(intent.state),
        "held_reason": intent.held_reason and str(intent.held_reason),
        "amount": None if intent.amount is None else format_amount(intent.amount, token.decimals),
        "token": token.symbol,
        "tx_hash": tx_hash and hex_text(tx_hash),
        "block": intent.mined_block,
    }
