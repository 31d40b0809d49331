"""The audit log: who did what, to what, and when. It only grows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ctrip.domain.times import timestamp

SCHEDULER = "scheduler"
"""Who did what nobody asked for: a rule that the operator configured."""
LOCAL = "local"
"""Who makes the credentials of a stack that is started for trying it out."""


@dataclass(frozen=True)
class Deed:
    """What somebody did. `by` is an API key's id, `cli:USER`, `scheduler` or `local`; `target` an object's id or name.

    `detail` says how, in as many words as the action needs, and never a secret.
    """

    id: str
    at: datetime
    by: str
    action: str
    target: str | None
    detail: Mapping[str, object]


def deed_object(deed: Deed) -> dict[str, object]:
    """Render a deed as operators see it."""
    return {
        "id": deed.id,
        "object": "audit_log_entry",
        "at": timestamp(deed.at),
        "by": deed.by,
        "action": deed.action,
        "target": deed.target,
        "detail": dict(deed.detail),
    }
