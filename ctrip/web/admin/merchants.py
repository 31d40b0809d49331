"""Merchants and keys, for operators."""

from datetime import timedelta

from flask import Response, jsonify

from ctrip.domain.merchants import Scope, key_object
from ctrip.domain.pages import list_object
from ctrip.errors import Conflict
from ctrip.services import merchants
from ctrip.web.admin import admin_blueprint
from ctrip.web.auth import needs
from ctrip.web.current import caller_id, context
from ctrip.web.refusals import refuses
from ctrip.web.schemas.merchants import (
    ApiKey,
    ApiKeyList,
    CreatedKey,
    CreatedMerchant,
    CreateKey,
    CreateMerchant,
    KeyPath,
    KeyQuery,
    RotateKey,
)

blueprint = admin_blueprint("merchants")


@blueprint.post("/merchants", responses={201: CreatedMerchant})
@needs(Scope.ADMIN)
def create_merchant(body: CreateMerchant) -> Response:
    """Create a merchant. Its webhook secret is shown this once."""
    merchant_id, secret = merchants.create_merchant(
        context(), by=caller_id(), name=body.name, email=body.email, tolerance_bps=body.underpayment_tolerance
    )
    return _created({"id": merchant_id, "webhook_secret": secret})


@blueprint.post("/keys", responses={201: CreatedKey})
@needs(Scope.ADMIN)
def create_key(body: CreateKey) -> Response:
    """Create a key of a merchant, or of an operator. It is shown this once."""
    key_id, key = merchants.create_key(
        context(),
        by=caller_id(),
        merchant_id=body.merchant_id,
        scopes=body.scopes,
        expires_at=body.expires_at,
        allowed_ips=body.allowed_ips,
    )
    return _created({"id": key_id, "key": key})


@blueprint.post("/keys/<key_id>/rotate", responses={201: CreatedKey})
@needs(Scope.ADMIN)
@refuses(Conflict)
def rotate_key(path: KeyPath, body: RotateKey) -> Response:
    """Let a new key take the place of one, which works for 24 hours more unless said otherwise.

    The new one may do the same. It is shown this once. A key has one live successor at a time, else 409: where that was
    revoked, another one can take its place.
    """
    key_id, key = merchants.rotate_key(
        context(),
        path.key_id,
        by=caller_id(),
        expires_at=body.expires_at,
        allowed_ips=body.allowed_ips,
        overlap=timedelta(seconds=body.overlap_seconds),
    )
    return _created({"id": key_id, "key": key})


@blueprint.get("/keys", responses={200: ApiKeyList})
@needs(Scope.ADMIN)
def list_keys(query: KeyQuery) -> dict[str, object]:
    """List keys without their secrets, newest first."""
    found = merchants.list_keys(
        context(), merchant_id=query.merchant_id, limit=query.limit + 1, after=query.starting_after
    )
    return list_object([key_object(key) for key in found], limit=query.limit)


@blueprint.delete("/keys/<key_id>", responses={200: ApiKey})
@needs(Scope.ADMIN)
def revoke_key(path: KeyPath) -> dict[str, object]:
    """Revoke a key, within a second. Again does nothing."""
    return key_object(merchants.revoke_key(context(), path.key_id, by=caller_id()))


def _created(made: dict[str, str]) -> Response:
    response = jsonify(made)
    response.status_code = 201
    return response
