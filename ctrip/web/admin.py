"""What operators do over HTTP: merchants, keys, loops, queues, dead letters. Only an operator's key gets in."""

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from ctrip.domain.dead_letters import dead_letter_object
from ctrip.domain.merchants import Scope, key_object
from ctrip.domain.pages import list_object
from ctrip.domain.queues import snapshot_object
from ctrip.services import dead_letters, loops, merchants, queues
from ctrip.web.auth import authorize, needs
from ctrip.web.current import context
from ctrip.web.openapi import operation_id
from ctrip.web.schemas.admin import (
    ApiKey,
    ApiKeyList,
    CreatedKey,
    CreatedMerchant,
    CreateKey,
    CreateMerchant,
    DeadLetter,
    DeadLetterList,
    DeadLetterPath,
    DeadLetterQuery,
    KeyPath,
    KeyQuery,
    LoopList,
    QueueList,
    Replay,
    Replayed,
)

blueprint = APIBlueprint(
    "admin",
    __name__,
    url_prefix="/admin",
    abp_tags=[Tag(name="Admin", description="What operators do, with an operator's key.")],
    operation_id_callback=operation_id,
)
blueprint.before_request(authorize)


@blueprint.post("/merchants", responses={201: CreatedMerchant})
@needs(Scope.ADMIN)
def create_merchant(body: CreateMerchant) -> Response:
    """Create a merchant. Its webhook secret is shown this once."""
    merchant_id, secret = merchants.create_merchant(
        context(), name=body.name, email=body.email, tolerance_bps=body.underpayment_tolerance
    )
    return _created({"id": merchant_id, "webhook_secret": secret})


@blueprint.post("/keys", responses={201: CreatedKey})
@needs(Scope.ADMIN)
def create_key(body: CreateKey) -> Response:
    """Create a key of a merchant, or of an operator. It is shown this once."""
    key_id, key = merchants.create_key(
        context(), merchant_id=body.merchant_id, scopes=body.scopes, expires_at=body.expires_at
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
    """Revoke a key, from the next request on. Again does nothing."""
    return key_object(merchants.revoke_key(context(), path.key_id))


@blueprint.get("/loops", responses={200: LoopList})
@needs(Scope.ADMIN)
def list_loops() -> dict[str, object]:
    """List the loops by name."""
    return _whole(loops.overview(context()))


@blueprint.get("/queues", responses={200: QueueList})
@needs(Scope.ADMIN)
def list_queues() -> dict[str, object]:
    """List the queues as the scheduler last saw them."""
    return _whole([snapshot_object(snapshot) for snapshot in queues.snapshots(context())])


@blueprint.get("/dead-letters", responses={200: DeadLetterList})
@needs(Scope.ADMIN)
def list_dead_letters(query: DeadLetterQuery) -> dict[str, object]:
    """List dead letters, newest first."""
    found = dead_letters.matching(context(), query.wanted(), limit=query.limit + 1, after=query.starting_after)
    return list_object([dead_letter_object(letter) for letter in found], limit=query.limit)


@blueprint.get("/dead-letters/<letter_id>", responses={200: DeadLetter})
@needs(Scope.ADMIN)
def get_dead_letter(path: DeadLetterPath) -> dict[str, object]:
    """Get a dead letter."""
    return dead_letter_object(dead_letters.show(context(), path.letter_id))


@blueprint.post("/dead-letters/replay", responses={200: Replayed})
@needs(Scope.ADMIN)
def replay_dead_letters(body: Replay) -> dict[str, int]:
    """Ask for the replay of dead letters. The scheduler sends them within seconds, each once."""
    count = dead_letters.request_replay(context(), body.filter.wanted(), dry_run=body.dry_run)
    return {"matched": count.matched, "done": count.done}


def _created(made: dict[str, str]) -> Response:
    response = jsonify(made)
    response.status_code = 201
    return response


def _whole(objects: list[dict[str, object]]) -> dict[str, object]:
    return list_object(objects, limit=len(objects))
