"""Jobs, for operators: asked for here, done by the workers, looked at until they are over."""

from flask import Response, jsonify

from ctrip.domain.jobs import job_object
from ctrip.domain.merchants import Scope
from ctrip.domain.pages import list_object
from ctrip.errors import Conflict, DestinationRefused, NotFound
from ctrip.services import jobs
from ctrip.web.admin import admin_blueprint
from ctrip.web.auth import needs
from ctrip.web.current import caller_id, context
from ctrip.web.refusals import refuses
from ctrip.web.schemas.jobs import (
    Backfill,
    CustomWebhook,
    Job,
    JobList,
    JobPath,
    JobQuery,
    ProcessPayment,
    ScanNow,
    SendWebhook,
    SweepAddress,
    SweepNow,
)

blueprint = admin_blueprint("jobs")


@blueprint.post("/scan-now", responses={202: Job})
@needs(Scope.ADMIN)
@refuses(Conflict)
def scan_now(body: ScanNow) -> Response:
    """Read a chain to its head now."""
    return _accepted(jobs.scan_now(context(), chain=body.chain, by=caller_id()))


@blueprint.post("/sweep-now", responses={202: Job})
@needs(Scope.ADMIN)
@refuses(Conflict)
def sweep_now(body: SweepNow) -> Response:
    """Make a tick of a chain's sweeper now."""
    return _accepted(jobs.sweep_now(context(), chain=body.chain, by=caller_id()))


@blueprint.post("/sweep-address", responses={202: Job})
@needs(Scope.ADMIN)
@refuses(NotFound, Conflict)
def sweep_address(body: SweepAddress) -> Response:
    """Sweep one asset at one address, also below the threshold. The job is done when the sweep is final."""
    made = jobs.sweep_address(context(), chain=body.chain, address=body.address, token=body.token, by=caller_id())
    return _accepted(made)


@blueprint.post("/process-payment", responses={202: Job})
@needs(Scope.ADMIN)
@refuses(NotFound, Conflict)
def process_payment(body: ProcessPayment) -> Response:
    """Read a payment again from its own chain, put right what is wrong, and tell the evidence in the result."""
    return _accepted(jobs.process_payment(context(), payment_id=body.payment_id, by=caller_id()))


@blueprint.post("/backfill", responses={202: Job})
@needs(Scope.ADMIN)
@refuses(Conflict)
def backfill(body: Backfill) -> Response:
    """Read now what was never read of a chain's assets; it is looked for every minute without that."""
    return _accepted(jobs.backfill(context(), chain=body.chain, by=caller_id()))


@blueprint.post("/send-webhook", responses={202: Job})
@needs(Scope.ADMIN)
@refuses(NotFound, Conflict)
def send_webhook(body: SendWebhook) -> Response:
    """Send an event of a payment again. The job is done when each delivery is delivered or dead."""
    made = jobs.send_webhook(context(), payment_id=body.payment_id, event_type=body.type, by=caller_id())
    return _accepted(made)


@blueprint.post("/custom-webhook", responses={202: Job})
@needs(Scope.ADMIN)
@refuses(NotFound, Conflict, DestinationRefused)
def custom_webhook(body: CustomWebhook) -> Response:
    """Post a JSON object of your own to a URL."""
    made = jobs.custom_webhook(
        context(), url=body.url, payload=body.payload, merchant_id=body.merchant_id, by=caller_id()
    )
    return _accepted(made)


@blueprint.get("/jobs", responses={200: JobList})
@needs(Scope.ADMIN)
def list_jobs(query: JobQuery) -> dict[str, object]:
    """List jobs, newest first."""
    found = jobs.matching(
        context(), kind=query.kind, status=query.status, limit=query.limit + 1, after=query.starting_after
    )
    return list_object([job_object(job) for job in found], limit=query.limit)


@blueprint.get("/jobs/<job_id>", responses={200: Job})
@needs(Scope.ADMIN)
def get_job(path: JobPath) -> dict[str, object]:
    """Get a job."""
    return jobs.find(context(), path.job_id)


def _accepted(job: dict[str, object]) -> Response:
    response = jsonify(job)
    response.status_code = 202
    return response
