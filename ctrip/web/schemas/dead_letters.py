"""Dead letters as operators read them, and which of them they mean."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.json_schema import WithJsonSchema

from ctrip.domain.dead_letters import MOST_IDS, OLDEST, Filter, State
from ctrip.web.schemas import AFTER, ULID, Incoming, ListOf, Outgoing, Page, Path, QueryNumber, Text

_LETTER_ID = f"^dlt_{ULID}$"
_LetterId = Annotated[str, Field(pattern=_LETTER_ID)]
_OLDEST_S = OLDEST // timedelta(seconds=1)
_Seconds = Annotated[int, Field(ge=0, le=_OLDEST_S)]
_SECONDS_SHOWN = WithJsonSchema({"type": "integer", "minimum": 0, "maximum": _OLDEST_S})
_QuerySeconds = Annotated[QueryNumber, Field(ge=0, le=_OLDEST_S), _SECONDS_SHOWN]
_OLDER_THAN = "Those that died at least so many seconds ago."
_NEWER_THAN = "Those that died less than so many seconds ago."
# The domain's Reason, written out: the document has another one, that of a transfer.
DeathReason = Literal["retries", "age", "poison", "unknown_actor", "undecodable", "schedule", "endpoint_disabled"]
LetterState = Literal["open", "replayed", "purged"]


class DeadLetterFilter(Incoming):
    """Which dead letters: those that match every field that is given."""

    queue: Text | None = Field(default=None, max_length=100, description="The queue it died in.")
    actor: Text | None = Field(default=None, max_length=100, description="The actor it was for.")
    reason: DeathReason | None = Field(default=None, description="Why it died.")
    exception: Text | None = Field(default=None, max_length=200, description="The exception's class, or its beginning.")
    older_than: _Seconds | None = Field(default=None, description=_OLDER_THAN)
    newer_than: _Seconds | None = Field(default=None, description=_NEWER_THAN)
    q: Text | None = Field(default=None, max_length=200, description="Text in its exception, arguments or ids.")
    state: LetterState | None = Field(
        default=None, description="What became of it. Unless given: `open` and `replayed`, not `purged`."
    )
    ids: list[_LetterId] = Field(default=[], max_length=MOST_IDS, description="Only these. An empty list: any.")

    def wanted(self) -> Filter:
        """Return it as the service takes it."""
        return Filter(
            queue=self.queue,
            actor=self.actor,
            reason=self.reason,
            exception=self.exception,
            older_than=_span(self.older_than),
            newer_than=_span(self.newer_than),
            q=self.q,
            state=self.state and State(self.state),
            ids=tuple(self.ids),
        )


class DeadLetterQuery(DeadLetterFilter, Page):
    """Which dead letters, newest first."""

    older_than: _QuerySeconds | None = Field(default=None, description=_OLDER_THAN)
    newer_than: _QuerySeconds | None = Field(default=None, description=_NEWER_THAN)
    ids: list[_LetterId] = Field(default=[], max_length=100, description="Only these; the parameter may be repeated.")
    starting_after: str | None = Field(default=None, pattern=_LETTER_ID, description=AFTER)


class DeadLetterPath(Path):
    """Which dead letter."""

    letter_id: str = Field(pattern=_LETTER_ID, description="The dead letter's id.")


class BulkAction(Incoming):
    """Which dead letters to act on."""

    filter: DeadLetterFilter = Field(
        description="Which dead letters; an empty object: all that are open.", examples=[{"queue": "webhook"}]
    )
    dry_run: bool = Field(default=False, description="Only say how many match.", examples=[True])


class BulkResult(Outgoing):
    """How many dead letters an action concerned."""

    matched: int = Field(description="How many match and are open, without those whose replay was asked for before.")
    done: int = Field(description="How many of them it was done to, by this request.")


class DeadLetter(Outgoing):
    """A message that will not be tried again by itself."""

    id: str = Field(description="Its id.", pattern=_LETTER_ID)
    object: Literal["dead_letter"] = Field(description="Always `dead_letter`.")
    queue: str = Field(description="The queue it died in.")
    actor: str = Field(description="The actor it was for.")
    args: list[Any] | None = Field(description="Its arguments; null where the message cannot be read.")
    reason: DeathReason = Field(description="Why it died.")
    state: LetterState = Field(description="What became of it.")
    exception: str | None = Field(description="The last exception.")
    traceback: str | None = Field(description="Where it came from.")
    row_id: str | None = Field(description="The row that the message spoke of.")
    message_id: str = Field(description="The message, as the queue knew it; the same in each of its lives.")
    first_at: str = Field(description="When it was first sent (RFC 3339, UTC).")
    died_at: str = Field(description="When it died.")
    replays: int = Field(description="How often it was replayed.")
    replay_requested_at: str | None = Field(description="When a replay was asked for.")
    replayed_at: str | None = Field(description="When it was sent again.")
    purged_at: str | None = Field(description="When somebody decided that it is not needed.")
    replayable: bool = Field(
        description="Whether a replay can be asked for: it is open, nobody asked yet, and the message can be read."
    )


class DeadLetterList(ListOf[DeadLetter]):
    """A page of dead letters."""


def _span(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
