"""Chains: what can be asked for, and how far each was read."""

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from ctrip.domain.merchants import Scope
from ctrip.services import chains
from ctrip.web.auth import authorize, needs
from ctrip.web.current import context
from ctrip.web.openapi import operation_id
from ctrip.web.schemas.chains import ChainList

blueprint = APIBlueprint(
    "chains",
    __name__,
    url_prefix="/api/v1/chains",
    abp_tags=[Tag(name="Chains", description="The chains and their assets, and how far each was read.")],
    operation_id_callback=operation_id,
)
blueprint.before_request(authorize)


@blueprint.get("", responses={200: ChainList})
@needs(Scope.PAYMENTS_READ)
def list_chains() -> dict[str, object]:
    """List all chains, in the order of their configuration."""
    return chains.overview(context())
