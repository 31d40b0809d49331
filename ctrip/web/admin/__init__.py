"""What operators do over HTTP, under /admin. Only an operator's key gets in."""

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from ctrip.web.auth import authorize
from ctrip.web.openapi import operation_id

TAG = Tag(name="Admin", description="What operators do, with an operator's key.")


def admin_blueprint(name: str) -> APIBlueprint:
    """Build the blueprint of one noun; every route in it must name the scope `admin`."""
    blueprint = APIBlueprint(
        f"admin_{name}", __name__, url_prefix="/admin", abp_tags=[TAG], operation_id_callback=operation_id
    )
    blueprint.before_request(authorize)
    return blueprint
