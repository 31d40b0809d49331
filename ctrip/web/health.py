"""What balancers ask: is the process alive, is it ready. No key is needed, and nothing here is a secret."""

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from ctrip.services import readiness
from ctrip.web.current import context
from ctrip.web.openapi import operation_id
from ctrip.web.schemas.health import Alive, Readiness

blueprint = APIBlueprint(
    "health",
    __name__,
    abp_tags=[Tag(name="Health", description="What balancers ask. No key is needed.")],
    operation_id_callback=operation_id,
)


@blueprint.get("/livez", responses={200: Alive})
def livez() -> dict[str, str]:
    """Say that the process runs. It looks at nothing else."""
    return {"status": "ok"}


@blueprint.get("/readyz", responses={200: Readiness, 503: Readiness})
def readyz() -> Response:
    """Say whether requests can be served here.

    Postgres and its migrations decide. Redis away or a lagging chain is `degraded`: payments are created all the same.
    """
    return _readiness()


@blueprint.get("/health", responses={200: Readiness, 503: Readiness})
def health() -> Response:
    """Say how each part is, as `/readyz` does."""
    return _readiness()


def _readiness() -> Response:
    found = readiness.check(context())
    response = jsonify(found)
    if found["status"] == "unavailable":
        response.status_code = 503
        response.headers["Retry-After"] = "5"
    return response
