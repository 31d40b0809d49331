"""Dead letters, for operators."""

from ctrip.domain.dead_letters import dead_letter_object
from ctrip.domain.merchants import Scope
from ctrip.domain.pages import list_object
from ctrip.services import dead_letters
from ctrip.web.admin import admin_blueprint
from ctrip.web.auth import needs
from ctrip.web.current import caller_id, context
from ctrip.web.schemas.dead_letters import (
    BulkAction,
    BulkResult,
    DeadLetter,
    DeadLetterList,
    DeadLetterPath,
    DeadLetterQuery,
)

AT_MOST = 10_000
"""Letters. A request holds a thread of the API while it works; what is more than seconds is the caller's to repeat."""
blueprint = admin_blueprint("dead_letters")


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


@blueprint.post("/dead-letters/replay", responses={200: BulkResult})
@needs(Scope.ADMIN)
def replay_dead_letters(body: BulkAction) -> dict[str, int]:
    """Ask for the replay of dead letters. The scheduler sends them within seconds, each once.

    One request marks 10,000 letters at most, the oldest ones; where `done` is 10,000, ask again. A letter whose reason
    is `undecodable` matches and is never done: its message cannot be read, so it cannot be sent.
    """
    count = dead_letters.request_replay(
        context(), body.filter.wanted(), by=caller_id(), dry_run=body.dry_run, at_most=AT_MOST
    )
    return {"matched": count.matched, "done": count.done}


@blueprint.post("/dead-letters/purge", responses={200: BulkResult})
@needs(Scope.ADMIN)
def purge_dead_letters(body: BulkAction) -> dict[str, int]:
    """Close dead letters that nobody needs. What their messages concerned stays as it is.

    One request closes 10,000 letters at most, the oldest ones; where `done` is 10,000, ask again. A letter whose replay
    was asked for is left to it.
    """
    count = dead_letters.purge(context(), body.filter.wanted(), by=caller_id(), dry_run=body.dry_run, at_most=AT_MOST)
    return {"matched": count.matched, "done": count.done}
