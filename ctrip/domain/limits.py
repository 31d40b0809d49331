"""What an endpoint accepts in one request, and what its refusals teach about that.

Providers agree on no code and no wording: a text decides first, a code only where the text says nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum


class Refusal(StrEnum):
    """What an endpoint's error means for the one who asked."""

    RANGE = "range"  # more blocks than it looks through at once
    RESULTS = "results"  # more logs than it tells at once
    BATCH = "batch"  # more calls than it takes at once
    TOPICS = "topics"  # more recipients or contracts than it looks for at once
    SIZE = "size"  # more bytes than it sends or takes at once
    TIMEOUT = "timeout"  # more work than it does at once
    RATE = "rate"  # more calls in a second, a day or a month than it is paid for
    HISTORY = "history"  # a block, or its state, that it does not have: not yet, not any more, or never
    METHOD = "method"  # it does not serve this method
    OTHER = "other"  # none of these


@dataclass(frozen=True)
class Limits:
    """The most calls of a request, blocks of a range and values of a topic; 0 where a question has no such thing.

    It also says how much was asked for in a request.
    """

    batch: int
    span: int
    topics: int


START = Limits(batch=100, span=10, topics=1000)
"""What an endpoint is asked for at first: the free tiers with narrow ranges allow 10 blocks or say their number."""
MOST = Limits(batch=100, span=10_000, topics=1000)
"""What no endpoint is ever asked beyond: more would not be faster, and takes memory here."""

_CHOSEN_BY_A_CONTRACT = re.compile(r"revert|vm exception|vm execution")
"""A contract writes the rest of such a message; it must not be read as the endpoint's own words."""

_JUDGED = frozenset({"eth_call", "eth_estimateGas", "eth_sendRawTransaction"})
"""A contract, or the rules of the chain, answer these: a refusal is the answer, and any endpoint would give it."""

_WORDS: tuple[tuple[Refusal, str], ...] = (
    (Refusal.HISTORY, r"(beyond|ahead of|past) (the )?((current|chain|chain's) )?(head|tip|latest)"),
    (Refusal.METHOD, r"method \S+ (does not exist|is not|not)|method not (found|supported|allowed)|unsupported method"),
    (Refusal.METHOD, r"(method|module) is (not|disabled)|not whitelisted|not included in your current plan"),
    (Refusal.BATCH, r"batch.*(limit|large|size|long|exceed|more than|max|many|not (supported|allowed))|too.*batch"),
    (Refusal.BATCH, r"(exceed|max|more than).*batch"),
    (Refusal.TOPICS, r"(address|topic).*(per search position|too many|exceed|maximum)"),
    (Refusal.TOPICS, r"(too many|exceed|max|less number of|limit).*(address|topic)"),
    (Refusal.RATE, r"too many requests|rate.?limit|limited the rate|request rate|request count|requests? (per|limit)"),
    (Refusal.RATE, r"requests limited|compute units|per second|throughput|quota|capacity|too much load"),
    (Refusal.RATE, r"retry in \d|reached the (free|limit)|usage limit"),
    (Refusal.TIMEOUT, r"time(d )?.?out|took too long|deadline exceeded"),
    (Refusal.RESULTS, r"returned? more than|returns? too many|exceeds max results|(results|logs).*(exceed|limit of)"),
    (Refusal.RESULTS, r"too many (results|logs)|more than [\d,]+k? (results|logs)|log response size"),
    (Refusal.RANGE, r"block range|blocks? range|too many blocks|requested blocks|ranges? (is )?(over|too|limit|large)"),
    (Refusal.RANGE, r"max(imum)?\.? range|exceeds the range|range.*(exceeds|limit)|limited to .*(range|block)"),
    (Refusal.RANGE, r"blocks distance|at most [\d,]+k? blocks|smaller than size"),
    (Refusal.SIZE, r"(response|reply|request|content|entity|payload|body|size).*(too (large|big)|exceed|greater than)"),
    (Refusal.SIZE, r"too (large|big)|exceeds? .*bytes|oversized"),
    (
        Refusal.HISTORY,
        r"missing trie node|no state|header (for hash )?not found|unknown block|block.* not found|prun(ed|ing)",
    ),
    (Refusal.HISTORY, r"archive|resource not found|not available|unavailable|ancient"),
    (Refusal.HISTORY, r"(block|header|state|history|data|receipts?).*(not (found|stored|exist|ready)|missing|expired)"),
    (Refusal.RATE, r"^limit exceeded"),
)
_PATTERNS = tuple((refusal, re.compile(words)) for refusal, words in _WORDS)
_CODES = {
    -32601: Refusal.METHOD,
    413: Refusal.SIZE,
    429: Refusal.RATE,
    4444: Refusal.HISTORY,
    -32001: Refusal.HISTORY,
    -32005: Refusal.RATE,
    -32007: Refusal.RATE,
    -32016: Refusal.RATE,
    -32029: Refusal.RATE,
}
_SUGGESTED = re.compile(r"\[0x([0-9a-f]+),\s*0x([0-9a-f]+)\]")
_SUGGESTED_IN_DECIMALS = re.compile(r"range (\d+)-(\d+)")
_LIMIT = re.compile(
    r"(?:max(?:imum)?|limit(?:ed)?|up to|at most|over|allowed|(?:greater|smaller|more) than|exceeds?|>)"
    r"(?:(?! line )\D){0,40}?(\d[\d,._]*)\s?(k\b)?"
)
_TIME = r"\d+(?:\.\d+)?\s*(?:milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)?(?![a-z])"
_WAIT = re.compile(rf"(?:retry[ -](?:in|after)|try again (?:in|after)|backoff_seconds\"?):?\s*((?:{_TIME}\s*)+)")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|mil|[smhd])?")
_SECONDS = {"ms": 0.001, "mil": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def classify(code: int, text: str) -> Refusal:
    """Say what an endpoint's error means. `text` is its message, and its `data` where it has some."""
    words = text.lower()
    if code == 3 or _CHOSEN_BY_A_CONTRACT.search(words):
        return Refusal.OTHER
    if code == -32601:
        return Refusal.METHOD
    for refusal, pattern in _PATTERNS:
        if pattern.search(words):
            return refusal
    return _CODES.get(code, Refusal.OTHER)


def is_its_own(method: str, refusal: Refusal) -> bool:
    """True where a refusal is about the endpoint, not about what was asked for: another one may well serve it.

    A block that it does not have is no such reason, though another may have it, too: it says nothing of other blocks.
    """
    return refusal is Refusal.METHOD or (refusal is not Refusal.HISTORY and method not in _JUDGED)


def seconds_to_wait(text: str) -> float | None:
    """Read from the text of a rate limit how long to leave the endpoint alone; None where it does not say."""
    found = _WAIT.search(text.lower())
    if found is None:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(found[1])) or None


def learn(limits: Limits, code: int, text: str, *, asked: Limits) -> Limits:
    """Return what to keep to from now on: the number that the refusal tells, else half of what was asked for.

    A batch that is refused as a whole, in words that teach nothing, is halved: there are endpoints without batches, and
    each has its own words for that. Where `asked` fits into the result, asking for less would not help.
    """
    learnt = _taught(limits, code, text, asked=asked)
    return lighten(limits, asked=asked) if asked.batch > 1 and fits(asked, learnt) else learnt


def lighten(limits: Limits, *, asked: Limits, span: int | None = None) -> Limits:
    """Return what to keep to where the answer was too much: fewer calls, else fewer blocks, else fewer recipients."""
    if asked.batch > 1:
        return replace(limits, batch=_narrowed(limits.batch, asked.batch, None))
    if asked.span > 1:
        return replace(limits, span=_narrowed(limits.span, asked.span, span))
    return replace(limits, topics=_narrowed(limits.topics, asked.topics, None))


def grow(limits: Limits, *, asked: Limits) -> Limits:
    """Return what to try next after an answer: twice of what was asked for to the limit."""
    return Limits(
        batch=_grown(limits.batch, asked.batch, MOST.batch),
        span=_grown(limits.span, asked.span, MOST.span),
        topics=_grown(limits.topics, asked.topics, MOST.topics),
    )


def fits(asked: Limits, limits: Limits) -> bool:
    """True where no more is asked for than the limits allow."""
    return asked.batch <= limits.batch and asked.span <= limits.span and asked.topics <= limits.topics


def _taught(limits: Limits, code: int, text: str, *, asked: Limits) -> Limits:
    refusal = classify(code, text)
    if refusal is Refusal.BATCH:
        return replace(limits, batch=_narrowed(limits.batch, asked.batch, _told(text, asked.batch)))
    if refusal is Refusal.TOPICS:
        return replace(limits, topics=_narrowed(limits.topics, asked.topics, _told(text, asked.topics)))
    if refusal is Refusal.RANGE:
        return replace(limits, span=_narrowed(limits.span, asked.span, _told(text, asked.span)))
    if refusal in (Refusal.RESULTS, Refusal.SIZE, Refusal.TIMEOUT):
        return lighten(limits, asked=asked, span=_suggested(text, asked.span))
    return limits


def _narrowed(limit: int, asked: int, told: int | None) -> int:
    """Never more than `limit`: another thread may have learnt since this was asked. Nothing asked, nothing learnt."""
    return limit if asked < 1 else max(1, min(limit, asked // 2 if told is None else told))


def _grown(limit: int, asked: int, most: int) -> int:
    return max(limit, min(most, 2 * limit)) if asked >= limit else limit


def _told(text: str, asked: int) -> int | None:
    """Return the limit that a text tells. A number that is not below what was asked for cannot be it."""
    suggested = _suggested(text, asked)
    return max(_numbers(text, asked), default=None) if suggested is None else suggested


def _suggested(text: str, asked: int) -> int | None:
    """Return how many blocks the range has that a text suggests, such as `[0x1, 0xa]` or `range 1-10`."""
    ranges = [(int(first, 16), int(last, 16)) for first, last in _SUGGESTED.findall(text.lower())]
    ranges += [(int(first), int(last)) for first, last in _SUGGESTED_IN_DECIMALS.findall(text.lower())]
    return next((last - first + 1 for first, last in ranges if 1 <= last - first + 1 < asked), None)


def _numbers(text: str, asked: int) -> Iterator[int]:
    for digits, thousands in _LIMIT.findall(text.lower()):
        number = int(re.sub(r"\D", "", digits)) * (1000 if thousands else 1)
        if 1 <= number < asked:
            yield number
