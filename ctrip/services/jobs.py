"""Jobs: asked for by an operator, checked at once, stored for the actor that does them, and looked at."""

from ctrip.context import Context
from ctrip.database import audit_log, events, jobs, loops, merchants, payments, transfers
from ctrip.domain.addresses import checksum_address, parse_address
from ctrip.domain.chains import Chain
from ctrip.domain.jobs import Facts, Job, JobKind, job_object
from ctrip.domain.loops import LoopKind
from ctrip.errors import Conflict, InvalidValue, MisconfiguredError, NotFound


def scan_now(ctx: Context, *, chain: str, by: str) -> dict[str, object]:
    """Ask for a chain to be read to its head. Raises InvalidValue, and Conflict where its listener is paused."""
    known = _chain(ctx, chain)
    params = {"chain": known.name, "chain_id": known.chain_id}
    return _add(ctx, JobKind.SCAN_NOW, params, by=by, loop=LoopKind.LISTENER)


def sweep_now(ctx: Context, *, chain: str, by: str) -> dict[str, object]:
    """Ask for a tick of a chain's sweeper. Raises InvalidValue, and Conflict where it is paused."""
    known = _chain(ctx, chain)
    params = {"chain": known.name, "chain_id": known.chain_id}
    return _add(ctx, JobKind.SWEEP_NOW, params, by=by, loop=LoopKind.SWEEPER)


def sweep_address(ctx: Context, *, chain: str, address: str, token: str | None, by: str) -> dict[str, object]:
    """Ask for the sweep of one token, or the coin, at one address, whatever it is worth.

    Raises InvalidValue, NotFound where the address is none of ours, and Conflict where the sweeper is paused.
    """
    known = _chain(ctx, chain)
    asset = known.token(token)
    if asset is None:
        raise InvalidValue(f"chain {known.name} lists no token {token!r}", param="token")
    place = parse_address(address, param="address")
    with ctx.sessions.begin() as session:
        if not transfers.owners(session, [place]):
            raise NotFound(f"{checksum_address(place)} was not issued here", param="address")
    params = {
        "chain": known.name,
        "chain_id": known.chain_id,
        "address": checksum_address(place),
        "token": None if asset.is_native else asset.symbol,
        "token_address": None if asset.is_native else checksum_address(asset.address),
    }
    return _add(ctx, JobKind.SWEEP_ADDRESS, params, by=by, loop=LoopKind.SWEEPER)


def process_payment(ctx: Context, *, payment_id: str, by: str) -> dict[str, object]:
    """Ask for a payment to be read again from its chain.

    Raises NotFound, and Conflict where its chain is not read or its listener is paused.
    """
    with ctx.sessions.begin() as session:
        payment = payments.find(session, payment_id)
    if payment is None:
        raise NotFound(f"there is no payment {payment_id}", param="payment_id")
    if payment.asked is None:
        raise Conflict("no asset of this payment was chosen yet: `ctrip rescan CHAIN` reads what came to its address")
    chain = ctx.settings.chain(payment.asked.chain_id)
    if chain is None or not chain.enabled:
        raise Conflict(f"chain {payment.asked.chain} of the payment is not served any more")
    params = {"payment_id": payment_id, "chain": chain.name, "chain_id": chain.chain_id}
    return _add(ctx, JobKind.PROCESS_PAYMENT, params, by=by, loop=LoopKind.LISTENER)


def backfill(ctx: Context, *, chain: str, by: str) -> dict[str, object]:
    """Ask for what was never read of a chain's assets.

    Raises InvalidValue, and Conflict where its listener is paused.
    """
    known = _chain(ctx, chain)
    params = {"chain": known.name, "chain_id": known.chain_id}
    return _add(ctx, JobKind.BACKFILL, params, by=by, loop=LoopKind.LISTENER)


def send_webhook(ctx: Context, *, payment_id: str, event_type: str, by: str) -> dict[str, object]:
    """Ask for the newest event of this type of a payment to be sent again.

    Raises NotFound, and InvalidValue where the payment has no such event.
    """
    with ctx.sessions.begin() as session:
        if payments.find(session, payment_id) is None:
            raise NotFound(f"there is no payment {payment_id}", param="payment_id")
        found = events.newest_of_each_type(session, payment_id)
    if event_type not in found:
        raise InvalidValue(f"the payment has no event of this type; it has {', '.join(sorted(found))}", param="type")
    params = {"payment_id": payment_id, "type": event_type, "event_id": found[event_type]}
    return _add(ctx, JobKind.SEND_WEBHOOK, params, by=by)


def custom_webhook(ctx: Context, *, url: str, payload: Facts, merchant_id: str | None, by: str) -> dict[str, object]:
    """Ask for a JSON object to be posted to a URL, signed with a merchant's secret where one is named.

    Raises DestinationRefused, and NotFound where there is no such merchant.
    """
    if ctx.poster is None:
        raise MisconfiguredError("this process checks no webhook URLs")
    ctx.poster.check(url, param="url")
    with ctx.sessions.begin() as session:
        if merchant_id is not None and not merchants.exists(session, merchant_id):
            raise NotFound(f"there is no merchant {merchant_id}", param="merchant_id")
    # The payload is the operator's own, and may be long: the audit log keeps where it went.
    detail = {"url": url, "merchant_id": merchant_id}
    return _add(ctx, JobKind.CUSTOM_WEBHOOK, detail | {"payload": dict(payload)}, by=by, detail=detail)


def find(ctx: Context, job_id: str) -> dict[str, object]:
    """Return a job. Raises NotFound."""
    with ctx.sessions.begin() as session:
        job = jobs.find(session, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id[:60]!r}")
    return job_object(job)


def matching(ctx: Context, *, kind: str | None, status: str | None, limit: int, after: str | None = None) -> list[Job]:
    """Return jobs, newest first, those older than the id `after` where one is given."""
    with ctx.sessions.begin() as session:
        return jobs.matching(session, kind=kind, status=status, limit=limit, after=after)


def _add(
    ctx: Context, kind: JobKind, params: Facts, *, by: str, loop: LoopKind | None = None, detail: Facts | None = None
) -> dict[str, object]:
    """Store a job. Raises Conflict where the loop that it runs is paused, or too many are open."""
    with ctx.sessions.begin() as session:
        if loop is not None:
            name = loops.loop_name(loop, params["chain_id"])
            row = loops.find(session, name)
            if row is not None and not row.enabled:
                raise Conflict(f"the loop {name} is paused; resume it first (POST /admin/loops/{name}/resume)")
        job = jobs.add(session, kind, params=params, by=by, new_id=ctx.new_id)
        note = params if detail is None else detail
        audit_log.add(session, by=by, action=f"jobs.{kind}", target=job.id, detail=note, new_id=ctx.new_id)
    return job_object(job)


def _chain(ctx: Context, name: str) -> Chain:
    chain = ctx.settings.chain_named(name)
    served = ", ".join(each.name for each in ctx.settings.chains if each.enabled)
    if chain is None:
        raise InvalidValue(f"no chain {name!r}; there is {served}", param="chain")
    if not chain.enabled:
        raise InvalidValue(f"chain {name} is switched off (enabled: false); there is {served}", param="chain")
    return chain
