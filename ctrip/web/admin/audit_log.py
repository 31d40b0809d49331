"""The audit log, for operators."""

from ctrip.domain.audit_log import deed_object
from ctrip.domain.merchants import Scope
from ctrip.domain.pages import list_object
from ctrip.services import audit_log
from ctrip.web.admin import admin_blueprint
from ctrip.web.auth import needs
from ctrip.web.current import context
from ctrip.web.schemas.audit_log import AuditLogList, AuditLogQuery

blueprint = admin_blueprint("audit_log")


@blueprint.get("/audit-log", responses={200: AuditLogList})
@needs(Scope.ADMIN)
def list_audit_log(query: AuditLogQuery) -> dict[str, object]:
    """List what operators did, newest first. It is never changed, and nothing is taken out of it."""
    found = audit_log.matching(
        context(), by=query.by, action=query.action, limit=query.limit + 1, after=query.starting_after
    )
    return list_object([deed_object(deed) for deed in found], limit=query.limit)
