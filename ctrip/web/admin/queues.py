"""Queues, for operators."""

from ctrip.domain.merchants import Scope
from ctrip.domain.pages import whole_list
from ctrip.domain.queues import snapshot_object
from ctrip.services import queues
from ctrip.web.admin import admin_blueprint
from ctrip.web.auth import needs
from ctrip.web.current import context
from ctrip.web.schemas.queues import QueueList

blueprint = admin_blueprint("queues")


@blueprint.get("/queues", responses={200: QueueList})
@needs(Scope.ADMIN)
def list_queues() -> dict[str, object]:
    """List the queues as the scheduler last saw them."""
    return whole_list([snapshot_object(snapshot) for snapshot in queues.snapshots(context())])
