"""Requests that are nearly right, or nothing at all: strategies over the operations of the OpenAPI document."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from tests.contract import ID, Contract
from tests.web.objects import PREFIXES, fit

JSON_TYPE = "application/json"
ODD_TEXTS = (
    "", "'", '"', "' OR 1=1 --", "'; DROP TABLE payments; --", "\x00", "a\x00b", "../../etc/passwd", "..", ".", "\\",
    "%", "\r\nX-Injected: 1", "null", "None", "true", "0", "-1", "1e9", "9" * 30, "x" * 9_000, "\u202e", "\U0001f4b8",
    "ß", "İ", f"pay_{ID}", f"PAY_{ID}", f"pay_{ID}\n", f"evt_{ID.lower()}", "{{7*7}}", "<script>", "anvil", "*",
)  # fmt: skip
RAW_PATHS = ("%00", "%ff%fe", "%2e%2e%2f", "%0a", "%", "%zz", "a%2fb", "%C0%AF", ";a=b", "%E2%80%AE")
texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    scalars, lambda below: st.lists(below) | st.dictionaries(st.text(max_size=5), below), max_leaves=4
)
HEADERS = {
    "Content-Type": (
        JSON_TYPE, "application/json; charset=utf-8", "application/json;charset=latin-1", "text/plain", "", "\xff",
        "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=x",
    ),
    "Content-Encoding": ("gzip", "identity", "br"),
    "Idempotency-Key": ("a", "x" * 255, "x" * 256, "", "\t", "\xe9", "a b"),
    "Accept": ("text/html", "application/xml", "*/*;q=x"),
    "Range": ("bytes=0-1", "x"),
    "If-None-Match": ("*",),
    "Origin": ("null", "https://shop.example"),
    "X-HTTP-Method-Override": ("DELETE",),
    "Expect": ("100-continue",),
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What is sent, and what is known of it."""

    caller: str
    method: str
    template: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    body: bytes | None

    @property
    def url(self) -> str:
        pairs = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in self.query)
        return f"{self.path}?{pairs}" if self.query else self.path


def requests(contract: Contract, callers: tuple[str, ...], made: dict[str, str]) -> st.SearchStrategy[Request]:
    """Requests to every operation: ids of what was `made` and ids of nothing, by every caller."""
    operations = list(contract.operations())

    @st.composite
    def one(draw: st.DrawFn) -> Request:
        method, template, operation = draw(st.sampled_from(operations))
        parameters = operation.get("parameters", [])
        path = template
        for parameter in parameters:
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", draw(_ids(parameter["name"], made)))
        names = [parameter["name"] for parameter in parameters if parameter["in"] == "query"]
        known = [made[prefix] for prefix in PREFIXES.values() if prefix in made]
        pair = st.tuples(st.sampled_from([*names, "page"]) | texts, st.sampled_from(known) | texts)
        headers = draw(st.lists(st.sampled_from(sorted(HEADERS)), max_size=2, unique=True))
        return Request(
            caller=draw(st.sampled_from(callers)),
            method=method,
            template=template,
            path=path,
            query=tuple(draw(st.lists(pair, max_size=3))) if draw(st.booleans()) else (),
            headers={"Content-Type": JSON_TYPE} | {name: draw(st.sampled_from(HEADERS[name])) for name in headers},
            body=draw(_bodies(operation, made)),
        )

    return one()


def nearly(example: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies that differ from a right one in a few fields: other values, none, or fields that there are not."""
    name = st.sampled_from([*example, "unknown"])
    changes = st.dictionaries(name, values, max_size=2)
    return st.builds(
        lambda changed, dropped: {key: value for key, value in (example | changed).items() if key not in dropped},
        changes,
        st.sets(name, max_size=1) | st.just(set()),
    )


def _bodies(operation: dict[str, Any], made: dict[str, str]) -> st.SearchStrategy[bytes | None]:
    content = operation.get("requestBody", {}).get("content", {}).get(JSON_TYPE)
    written = values.map(lambda value: json.dumps(value).encode())
    if content is None:
        return st.none() | written
    right = nearly(fit(content["example"], made)).map(lambda value: json.dumps(value).encode())
    return right | right | right | written | st.binary(max_size=40)


def _ids(name: str, made: dict[str, str]) -> st.SearchStrategy[str]:
    prefix = PREFIXES.get(name)
    right = (
        ["listener:31337", "listener:1"]
        if prefix is None
        else [f"{prefix}_{ID}", *(made[p] for p in (prefix,) if p in made)]
    )
    return st.sampled_from(right) | st.sampled_from(RAW_PATHS) | texts.map(_quoted)


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "replace"), safe="")
