"""Logs: one JSON line per outcome, an event name and ids. Secrets never: what looks like one is struck out."""

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def _absent(module: str) -> Iterator[None]:
    """Have a module not be found where it is not loaded yet."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


# It loads rich where it can, to draw tracebacks on terminals: 5 MB in each process, which writes lines of JSON.
with _absent("rich"):
    import structlog

SECRET_PATTERN = "|".join(
    (
        r"(?<![0-9A-Za-z])whsec_[A-Za-z0-9+/=_-]+",
        r"(?<![0-9A-Za-z])sk_[A-Za-z0-9]+_[A-Za-z0-9_-]+",
        r"(?<![0-9A-Za-z])xprv[1-9A-HJ-NP-Za-km-z]{20,}",
        r"(?<![0-9A-Za-z])[0-9a-fA-F]{64}(?![0-9A-Za-z])",  # a private key; hashes are written with 0x
    )
)
"""What looks like a key of ours, in a log or a row. Python and Postgres read it alike."""
_SECRET = re.compile(rf"{SECRET_PATTERN}|(?<=://)[^/\s]+(?=@)")
_STRUCK = "[redacted]"
_SHORTEST = 6
"""A known secret of fewer characters would strike out ordinary words."""
_known: tuple[str, ...] = ()
"""What this process was told, the longest first, so that no part of one remains."""
_processors: list[structlog.typing.Processor] = []
"""One list for as long as the process lives: modules keep the logger that they first wrote with, and its list."""
_TALKATIVE = ("urllib3", "web3", "requests", "websockets", "alembic")
"""Libraries whose debug lines hold whole URLs and bodies; a provider's key stands in the path of an RPC URL."""


def redact(text: str) -> str:
    """Strike out what `configure_logging` was told, API keys, webhook secrets, private keys and URLs' credentials."""
    for secret in _known:
        text = text.replace(secret, _STRUCK)
    return _SECRET.sub(_STRUCK, text)


def configure_logging(*, level: str, process: str, secrets: Iterable[str] = ()) -> None:
    """Send all logs of this process, libraries' included, to stderr as JSON lines that name the `process`.

    `secrets` are values that this process was told: they are struck out wherever they appear, whatever they look like.
    """
    global _known  # noqa: PLW0603 (as global as the logs themselves)
    _known = tuple(sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True))
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _Process(process),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    _processors[:] = [
        structlog.stdlib.filter_by_level,
        *shared,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    structlog.configure(
        processors=_processors,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _Redaction(),
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def get_logger() -> structlog.stdlib.BoundLogger:
    """Return the logger that every module uses."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger


class _Process:
    """Names the process on every line: a context variable would not reach the worker threads."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Run as a structlog processor."""
        event.setdefault("process", self._name)
        return event


class _Redaction:
    """Strikes secrets out of every text of a line, however deep, and writes bytes as `0x` text."""

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Run as a structlog processor, last before the renderer."""
        return {key: self._clean(value) for key, value in event.items()}

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return redact(value)
        if isinstance(value, bytes):
            return "0x" + value.hex()
        if isinstance(value, Mapping):
            return {key: self._clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(inner) for inner in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._clean(str(value))
