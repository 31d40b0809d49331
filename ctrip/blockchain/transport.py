"""One JSON-RPC 2.0 request over kept-alive HTTP: calls go out as one batch, replies come back in their order.

A URL may carry a provider's key, so only its host appears in errors and logs.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ctrip.blockchain.answers import Answer, NoAnswer
from ctrip.blockchain.buffers import Buffers
from ctrip.blockchain.connections import ConnectionPool, system_trust, target_of
from ctrip.blockchain.forms import WrongForm, decoded
from ctrip.domain.limits import Refusal, classify, seconds_to_wait
from ctrip.errors import NodeRefused, NodeUnavailable
from ctrip.time_limits import TimeLimit

TIMEOUT_S = 8.0
"""The most that one request may take, from connecting to the last byte, however slowly anything of it drips.

To resolve a name goes by the limits of the system's resolver: without a thread of its own nothing can end that.
"""
MAX_REPLY_BYTES = 64 * 2**20
_MAX_ERROR_BYTES = 2**16
_MAX_LEADING_BYTES = 2**10
_MAX_IDLE_CONNECTIONS = 128
"""Connections that are kept open; more threads than this at once only dial again."""

Call = tuple[str, list[object]]
Clock = Callable[[], float]
_CONNECTIONS = ConnectionPool(most=_MAX_IDLE_CONNECTIONS, trust=system_trust)
_BUFFERS = Buffers(most=16)
_HIDDEN = re.compile(r"\w+://\S+")


class Fault(msgspec.Struct):
    """The error member of a reply."""

    code: int
    message: str
    details: msgspec.Raw = msgspec.field(name="data", default=msgspec.Raw(b""))

    @property
    def text(self) -> str:
        """The message with its data, which some nodes write the reason into; without links, which may hold a key."""
        details = "" if self.details == b"null" else bytes(self.details)[:500].decode(errors="replace")
        return _HIDDEN.sub("…", f"{self.message[:500]} {details}".strip())

    @property
    def refusal(self) -> Refusal:
        """What it means."""
        return classify(self.code, self.text)


class Reply(msgspec.Struct):
    """One reply: `result`, in the form that was asked for, or `error` is set."""

    id: int | None = None
    result: Any = msgspec.UNSET
    error: Fault | None = None


class Form:
    """What all results of a request are: they are decoded in one go with what is around them."""

    def __init__(self, result: Any) -> None:
        told = msgspec.defstruct("Told", [("result", result | msgspec.UnsetType, msgspec.UNSET)], bases=(Reply,))
        self._batch = msgspec.json.Decoder(list[told])  # type: ignore[valid-type]
        self._single = msgspec.json.Decoder(told)

    def decode(self, body: bytes | memoryview) -> list[Reply]:
        """Decode a whole answer. Raises WrongForm."""
        # A node that dislikes a batch as a whole answers with a single object.
        is_batch = bytes(memoryview(body)[:_MAX_LEADING_BYTES]).lstrip()[:1] == b"["
        replies: list[Reply] = decoded(self._batch, body) if is_batch else [decoded(self._single, body)]  # type: ignore[list-item]
        return replies


RAW = Form(msgspec.Raw)
"""Results that stay undecoded JSON, `b"null"` included."""
TEXTS = Form(str)
"""Quantities, and what contracts answer."""


class RateLimited(NodeUnavailable):
    """The endpoint asks for a pause of `wait_s` seconds; None where it does not say how long."""

    def __init__(self, detail: str, *, wait_s: float | None) -> None:
        super().__init__(detail)
        self.wait_s = wait_s


class TooSlow(NodeUnavailable):
    """No connection, or no whole answer, in time: the endpoint hangs, or was asked for too much."""


class Crowded(NodeUnavailable):
    """It began to answer, and what was received before took all the time that there was: no fault of the endpoint."""


class NotServed(NodeRefused):
    """This endpoint lacks the blocks, or refuses for reasons of its own: another one may serve it."""


class BatchRefused(NodeRefused):
    """One error for all calls of a batch."""

    def __init__(self, detail: str, fault: Fault) -> None:
        super().__init__(detail, rpc_code=fault.code, rpc_message=fault.text)


_FAULTS = msgspec.json.Decoder(list[Fault] | Fault)


def label_of(url: str) -> str:
    """Return what may be shown of an endpoint: its host, and the port where it is told."""
    return urlsplit(url).netloc.rpartition("@")[2]


def labels_of(urls: Sequence[str]) -> list[str]:
    """Return what may be shown of endpoints that stand beside each other, no two the same: `host`, `host#2`, `host#3`.

    Whoever counts voices goes by these: two keys of one provider, or two chains behind one gateway, are two endpoints.
    """
    labels = [label_of(url) for url in urls]
    before = [labels[:at].count(label) for at, label in enumerate(labels)]
    return [f"{label}#{count + 1}" if count else label for label, count in zip(labels, before, strict=True)]


def refused(method: str, fault: Fault, *, kind: type[NodeRefused] = NodeRefused) -> NodeRefused:
    """Make the error for a call that the node answered with one."""
    message = fault.message[:500]
    return kind(f"{method}: {message}", rpc_code=fault.code, rpc_message=message)


def exchange(
    url: str,
    calls: Sequence[Call],
    *,
    label: str,
    arriving: threading.Semaphore,
    form: Form = RAW,
    clock: Clock = time.monotonic,
) -> list[Reply]:
    """Send calls as one batch and return their replies in the calls' order; an error of a single call is in its reply.

    `label` is what errors call the endpoint. The answer is received and decoded within `arriving`, which bounds how
    many are in memory at once; to wait for that counts as a part of the request, so none takes longer than TIMEOUT_S.

    Raises NodeUnavailable where nothing usable came back, RateLimited where too much was asked of late, TooSlow,
    Crowded, and BatchRefused where the endpoint refused several calls as a whole.
    """
    requests = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate(calls)
    ]
    body = msgspec.json.encode(requests if len(requests) > 1 else requests[0])
    time_limit = TimeLimit(TIMEOUT_S, clock=clock)
    try:
        target = target_of(url)
        with _CONNECTIONS.lend(target, time_limit=time_limit) as connection:
            answer = connection.ask(target.head, body, time_limit=time_limit)
            if answer.status >= 300:
                return _failed(answer, count=len(calls), label=label)
            with _turn(arriving, time_limit, label=label):
                return _answered(answer, form, count=len(calls), label=label)
    except TimeoutError as error:
        raise TooSlow(f"{label} did not answer whole in time: {type(error).__name__}") from None
    except (OSError, NoAnswer) as error:
        # The exception's own text may hold the URL's path, where providers put the key.
        raise NodeUnavailable(f"{label} did not answer: {type(error).__name__}") from None


@contextmanager
def _turn(arriving: threading.Semaphore, time_limit: TimeLimit, *, label: str) -> Iterator[None]:
    if not arriving.acquire(timeout=time_limit.left_s(TIMEOUT_S)):
        raise Crowded(f"{label} was not heard to the end: others of its answers took all the time")
    try:
        yield
    finally:
        arriving.release()


def _answered(answer: Answer, form: Form, *, count: int, label: str) -> list[Reply]:
    buffer = _BUFFERS.take()
    try:
        body = answer.body(buffer, most=MAX_REPLY_BYTES)
        if body is None:
            too_large = Fault(413, f"response too large: more than {MAX_REPLY_BYTES} bytes")
            return _refused_all(too_large, count=count, label=label)
        return _decode(body, form, count=count, label=label)
    finally:
        _BUFFERS.give(buffer)


def _failed(answer: Answer, *, count: int, label: str) -> list[Reply]:
    """Make of an HTTP error what it means: a pause, an answer that came with the wrong status, or a failure."""
    fault = _fault_in(answer)
    text = "" if fault is None else f": {fault.text[:200]}"
    told = f"{label} answered HTTP {answer.status}{text}"
    wait_s = retry_after(answer.headers.get("retry-after"), date=answer.headers.get("date"))
    refusal = fault.refusal if fault is not None else Refusal.SIZE if answer.status == 413 else Refusal.OTHER
    if answer.status == 429 or (answer.status == 503 and wait_s is not None) or refusal is Refusal.RATE:
        raise RateLimited(told, wait_s=seconds_to_wait(text) if wait_s is None else wait_s)
    is_about_the_question = fault is not None and 400 <= answer.status < 500 and answer.status not in (401, 403)
    if refusal is not Refusal.OTHER or is_about_the_question:
        return _refused_all(fault or Fault(answer.status, "request entity too large"), count=count, label=label)
    raise NodeUnavailable(told)


def _fault_in(answer: Answer) -> Fault | None:
    try:
        body = answer.body(bytearray(), most=_MAX_ERROR_BYTES)
    except (OSError, NoAnswer):
        # The status says enough: whoever limits the rate may well hang up.
        return None
    if body is None:
        return None
    try:
        replies = RAW.decode(body)
        fault = next((reply.error for reply in replies if reply.error is not None), None)
        faults = decoded(_FAULTS, body) if fault is None else fault
    except WrongForm:
        return None
    return faults if isinstance(faults, Fault) else next(iter(faults), None)


def retry_after(value: str | None, *, date: str | None = None) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds, or a time, which is compared with the answer's own Date.

    None where it is missing, past or unreadable.
    """
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value) or None
    try:
        then = parsedate_to_datetime(value)
        now = datetime.now(UTC) if date is None else parsedate_to_datetime(date)
        wait_s = (then - now).total_seconds()
    except (ValueError, TypeError):  # no date; or one of the two has no zone
        return None
    return wait_s if wait_s > 0 else None


def _decode(body: memoryview, form: Form, *, count: int, label: str) -> list[Reply]:
    try:
        replies = form.decode(body)
    except WrongForm as error:
        raise NodeUnavailable(f"{label} answered no JSON-RPC, or another than was asked for: {error.detail}") from None
    _stop_where_limited(replies, label=label)
    if any(reply.error is None and reply.result is msgspec.UNSET for reply in replies):
        raise NodeUnavailable(f"{label} answered with neither a result nor an error")
    if count == 1 and len(replies) == 1:
        return replies
    by_id = {reply.id: reply for reply in replies}
    if set(by_id) != set(range(count)):
        fault = next((reply.error for reply in replies if reply.error is not None), None)
        if fault is None:
            raise NodeUnavailable(f"{label} did not answer the whole batch: replies are missing")
        return _refused_all(fault, count=count, label=label)
    return [by_id[number] for number in range(count)]


def _stop_where_limited(replies: Sequence[Reply], *, label: str) -> None:
    """Raise RateLimited where one of the calls was too many: the others would have to be asked for again anyway."""
    for reply in replies:
        if reply.error is not None and reply.error.refusal is Refusal.RATE:
            text = reply.error.text
            raise RateLimited(f"{label} limits the rate: {text[:200]}", wait_s=seconds_to_wait(text))


def _refused_all(fault: Fault, *, count: int, label: str) -> list[Reply]:
    if count == 1:
        return [Reply(error=fault)]
    raise BatchRefused(f"{label} refused a batch of {count}: {fault.text[:200]}", fault)
