"""Loops, for operators."""

from ctrip.domain.merchants import Scope
from ctrip.domain.pages import whole_list
from ctrip.errors import Conflict
from ctrip.services import loops
from ctrip.web.admin import admin_blueprint
from ctrip.web.auth import needs
from ctrip.web.current import caller_id, context
from ctrip.web.refusals import refuses
from ctrip.web.schemas.loops import Loop, LoopList, LoopPath

blueprint = admin_blueprint("loops")


@blueprint.get("/loops", responses={200: LoopList})
@needs(Scope.ADMIN)
def list_loops() -> dict[str, object]:
    """List the loops by name."""
    return whole_list(loops.overview(context()))


@blueprint.post("/loops/<name>/pause", responses={200: Loop})
@needs(Scope.ADMIN)
def pause_loop(path: LoopPath) -> dict[str, object]:
    """Let a loop rest until it is resumed. The run at hand, if there is one, ends first."""
    return loops.pause(context(), path.name, by=caller_id())


@blueprint.post("/loops/<name>/resume", responses={200: Loop})
@needs(Scope.ADMIN)
def resume_loop(path: LoopPath) -> dict[str, object]:
    """Let a paused loop run again, from where it stopped."""
    return loops.resume(context(), path.name, by=caller_id())


@blueprint.post("/loops/<name>/run", responses={200: Loop})
@needs(Scope.ADMIN)
@refuses(Conflict)
def run_loop(path: LoopPath) -> dict[str, object]:
    """Make a loop run within two seconds, also when it is not due. A paused one is refused."""
    return loops.run(context(), path.name, by=caller_id())
