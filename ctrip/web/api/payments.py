"""Payments: asked for, looked at, canceled, accepted, and the evidence of what was paid."""

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from ctrip.domain.merchants import Scope
from ctrip.errors import (
    ChainNotReady,
    Conflict,
    DestinationRefused,
    IdempotencyInFlight,
    IdempotencyMismatch,
    InvalidAmount,
    RateUnavailableError,
    TooManyOpen,
)
from ctrip.services import creating, payments, prices
from ctrip.web import idempotency
from ctrip.web.auth import authorize, needs
from ctrip.web.current import context, merchant_id
from ctrip.web.openapi import operation_id
from ctrip.web.refusals import refuses
from ctrip.web.schemas.events import EventList, EventQuery
from ctrip.web.schemas.payments import (
    CreatePayment,
    Payment,
    PaymentList,
    PaymentPath,
    PaymentQuery,
    TransferList,
    TransferQuery,
)
from ctrip.web.schemas.prices import AssetChoice, QuoteList
from ctrip.web.schemas.webhook_deliveries import DeliveryQuery, WebhookDeliveryList

blueprint = APIBlueprint(
    "payments",
    __name__,
    url_prefix="/api/v1/payments",
    abp_tags=[Tag(name="Payments", description="An amount of one asset, asked for at an address of its own.")],
    operation_id_callback=operation_id,
)
blueprint.before_request(authorize)


@blueprint.post(
    "",
    responses={201: Payment},
    openapi_extensions={"parameters": [idempotency.PARAMETER]},
)
@needs(Scope.PAYMENTS_WRITE)
@refuses(IdempotencyInFlight, IdempotencyMismatch, InvalidAmount, DestinationRefused, TooManyOpen, ChainNotReady)
def create_payment(body: CreatePayment) -> Response:
    """Create a payment.

    The answer holds the address to pay. Send an `Idempotency-Key`: then a request that is repeated after a broken
    connection gets the first answer, and no second payment is made.
    """
    answer = creating.create(context(), merchant_id(), request=body.request(), once=idempotency.once())
    return idempotency.respond(answer)


@blueprint.get("", responses={200: PaymentList})
@needs(Scope.PAYMENTS_READ)
def list_payments(query: PaymentQuery) -> dict[str, object]:
    """List payments, newest first."""
    filters = query.model_dump(exclude={"limit", "starting_after"}, exclude_none=True)
    return payments.matching(context(), merchant_id(), filters=filters, limit=query.limit, after=query.starting_after)


@blueprint.get("/<payment_id>", responses={200: Payment})
@needs(Scope.PAYMENTS_READ)
def get_payment(path: PaymentPath) -> dict[str, object]:
    """Get a payment."""
    return payments.find(context(), merchant_id(), path.payment_id)


@blueprint.post("/<payment_id>/cancel", responses={200: Payment})
@needs(Scope.PAYMENTS_WRITE)
@refuses(Conflict)
def cancel_payment(path: PaymentPath) -> dict[str, object]:
    """Cancel a pending payment.

    Only while no transfer to its address is stored; else 409. Its address is watched all the same: what is paid later
    is announced with `payment.late`.
    """
    return payments.cancel(context(), merchant_id(), path.payment_id)


@blueprint.post("/<payment_id>/accept", responses={200: Payment})
@needs(Scope.PAYMENTS_WRITE)
@refuses(Conflict)
def accept_payment(path: PaymentPath) -> dict[str, object]:
    """Accept what was paid to an expired or canceled payment.

    Where final transfers exist, it becomes `confirmed`, and `settled` at once where its money is in the treasury
    already; else 409.
    """
    return payments.accept(context(), merchant_id(), path.payment_id)


@blueprint.get("/<payment_id>/quotes", responses={200: QuoteList})
@needs(Scope.PAYMENTS_READ)
@refuses(Conflict)
def list_payment_quotes(path: PaymentPath) -> dict[str, object]:
    """List what each accepted asset would cost just now.

    For a payment that asks for a price, until its asset is chosen; else 409. Nothing is locked by it.
    """
    return prices.quotes(context(), merchant_id(), path.payment_id)


@blueprint.post("/<payment_id>/choose", responses={200: Payment})
@needs(Scope.PAYMENTS_WRITE)
@refuses(Conflict, InvalidAmount, RateUnavailableError)
def choose_payment(path: PaymentPath, body: AssetChoice) -> dict[str, object]:
    """Choose the asset in which a price is paid.

    Once; after that, and where the payment is over, 409. The rate is locked until the new `expires_at`, and the amount
    follows from it. Money that came before the choice does not count. 503 where no rate is known just now: nothing is
    chosen then, try again.
    """
    return prices.choose(context(), merchant_id(), path.payment_id, chain=body.chain, token=body.token)


@blueprint.get("/<payment_id>/transfers", responses={200: TransferList})
@needs(Scope.PAYMENTS_READ)
def list_payment_transfers(path: PaymentPath, query: TransferQuery) -> dict[str, object]:
    """List what reached a payment's address, oldest block first: why it is, or is not, paid."""
    return payments.transfers(context(), merchant_id(), path.payment_id, limit=query.limit, after=query.starting_after)


@blueprint.get("/<payment_id>/events", responses={200: EventList})
@needs(Scope.PAYMENTS_READ)
def list_payment_events(path: PaymentPath, query: EventQuery) -> dict[str, object]:
    """List a payment's events, oldest first."""
    return payments.events(context(), merchant_id(), path.payment_id, limit=query.limit, after=query.starting_after)


@blueprint.get("/<payment_id>/deliveries", responses={200: WebhookDeliveryList})
@needs(Scope.PAYMENTS_READ)
def list_payment_deliveries(path: PaymentPath, query: DeliveryQuery) -> dict[str, object]:
    """List the webhook deliveries of a payment's events, in the order of the events."""
    return payments.deliveries(context(), merchant_id(), path.payment_id, limit=query.limit, after=query.starting_after)
