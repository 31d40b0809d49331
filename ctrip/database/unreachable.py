"""Why the database cannot be reached, in words that hold nothing of its URL: the driver's own may quote a password."""

from sqlalchemy import exc

_REASONS = {
    "Connection refused": "no server listens there",
    "No such file or directory": "no server's socket is there",
    "could not translate host name": "its host name is unknown",
    "password authentication failed": "the user or the password is wrong",
    "no password supplied": "it wants a password",
    "no pg_hba.conf entry": "its pg_hba.conf lets this user in from nowhere near here",
    "timeout expired": "it does not answer within 5 s",
    "too many clients": "it has no connection to spare",
    "starting up": "it is starting up",
    "shutting down": "it is shutting down",
    "Network is unreachable": "no network leads there",
    "No route to host": "no network leads there",
}


def message(error: BaseException, place: str) -> str:
    """Say that the database at `place` cannot be reached, and why."""
    return f"DATABASE_URL: the database {place} cannot be reached: {_reason(error)}; it names a running Postgres"


def _reason(error: BaseException) -> str:
    """Return the reason behind an error of SQLAlchemy's, or behind what was raised from one."""
    cause = error if isinstance(error, exc.DBAPIError) else error.__cause__
    if not isinstance(cause, exc.DBAPIError):
        return "no connection became free"
    text = str(cause.orig)
    if "does not exist" in text:
        return "it has no such database" if "database" in text else "it has no such user"
    return next((reason for sign, reason in _REASONS.items() if sign in text), "the connection failed")
