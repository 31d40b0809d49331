"""The OpenAPI 3.1 document: generated from routes and models, then completed where the framework says too little.

flask-openapi3 documents refusals as plain JSON, knows no scopes, and drops keywords of JSON Schema that it does not
know. So security, problems and schemas are written here, from the same marks and models that the routes run on.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Any

from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ctrip.web import links, refusals
from ctrip.web.schemas import ULID, Incoming, Outgoing, Page

_SCHEMAS = "#/components/schemas/"

_HEADERS = {
    "RequestId": {
        "description": "The request, as our logs know it.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^req_{ULID}$"},
    },
    "RetryAfter": {"description": "Seconds to wait.", "required": True, "schema": {"type": "integer", "minimum": 1}},
    "WWWAuthenticate": {
        "description": "How to authenticate (RFC 6750).",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
    },
    "RateLimit": {
        "description": "How many requests are left (`r`), and in how many seconds the window ends (`t`): the header of "
        "draft-ietf-httpapi-ratelimit-headers. Absent where nothing is limited.",
        "schema": {"type": "string", "examples": ['"key";r=5999;t=42']},
    },
    "RateLimitPolicy": {
        "description": "How many requests (`q`) a window of so many seconds (`w`) has.",
        "schema": {"type": "string", "examples": ['"key";q=6000;w=60']},
    },
    "Replayed": {
        "description": "`true` where an earlier request with this Idempotency-Key got this answer.",
        "schema": {"type": "string", "const": "true"},
    },
}


def operation_id(*, name: str, path: str, method: str) -> str:  # noqa: ARG001 (the framework's signature)
    """Name an operation after its view, so that generated clients read well."""
    return name


def make_document(app: OpenAPI) -> dict[str, Any]:
    """Return the document of all routes that the application has by now."""
    document: dict[str, Any] = app.api_doc
    for path, method, view in _views(app):
        operation = document["paths"].get(path, {}).get(method)
        if operation is not None:
            _complete(operation, view)
    components = document["components"]
    components["headers"] = _HEADERS
    components["schemas"] = _schemas()
    links.add_links(document)
    return document


def _views(app: OpenAPI) -> Iterator[tuple[str, str, Any]]:
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            yield path, method.lower(), app.view_functions[rule.endpoint]


def _complete(operation: dict[str, Any], view: Any) -> None:
    """Write what the framework could not know of an operation."""
    summary, _, description = (inspect.getdoc(view) or "").partition("\n")
    operation["summary"] = summary.removesuffix(".")
    operation["description"] = description.strip()
    scope = getattr(view, "scope", None)
    operation["security"] = [] if scope is None else [{"apiKey": [str(scope)]}]
    # The framework declares a 422 of its own. `/readyz` has an answer of its own where another route has a refusal.
    answers = {status: answer for status, answer in operation["responses"].items() if not _refuses(answer)}
    operation["responses"] = dict(sorted((refusals.describe(operation, view) | answers).items()))
    for answer in operation["responses"].values():
        answer["headers"] = _headers(is_limited=scope is not None) | answer.get("headers", {})
    if any(p["name"] == "Idempotency-Key" for p in operation.get("parameters", [])):
        answers["201"]["headers"]["Idempotency-Replayed"] = {"$ref": "#/components/headers/Replayed"}
    for parameter in operation.get("parameters", []):
        parameter["schema"] = _without_null(_plain(parameter["schema"]))
    _give_example(operation, view)


def _refuses(answer: dict[str, Any]) -> bool:
    return "Problem" in str(answer["content"])


def _headers(*, is_limited: bool) -> dict[str, Any]:
    names = {"X-Request-Id": "RequestId"}
    if is_limited:
        names |= {"RateLimit": "RateLimit", "RateLimit-Policy": "RateLimitPolicy"}
    return {name: {"$ref": f"#/components/headers/{component}"} for name, component in names.items()}


def _give_example(operation: dict[str, Any], view: Any) -> None:
    """Give a body an example, put together from those of its fields."""
    body = inspect.get_annotations(view, eval_str=True).get("body")
    if body is not None:
        fields = body.model_fields.items()
        example = {name: field.examples[0] for name, field in fields if field.examples}
        operation["requestBody"]["content"]["application/json"]["example"] = example


def _schemas() -> dict[str, Any]:
    """Return the schemas of all models; parameters are written where they are used and need none."""
    incoming = [(model, "validation") for model in _leaves(Incoming) if not issubclass(model, Page)]
    outgoing = [(model, "serialization") for model in _leaves(Outgoing)]
    _, made = models_json_schema([*incoming, *outgoing], ref_template=_SCHEMAS + "{model}")  # type: ignore[list-item]
    return {name: _plain(schema) for name, schema in made["$defs"].items()}


def _leaves(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in kind.__subclasses__():
        if not model.__subclasses__():
            yield model
        yield from _leaves(model)


def _plain(schema: Any) -> Any:
    """Leave out what says nothing: titles made of field names, null as the default of what may be absent, 1.0 for 1."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if isinstance(schema, float) and schema.is_integer():
        return int(schema)
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _plain(each) for name, each in value.items()} if key == "properties" else _plain(value)
        for key, value in schema.items()
        if key != "title" and (key, value) != ("default", None)
    }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Say what a parameter may be where it is there: in a query nothing is null."""
    options = [option for option in schema.pop("anyOf", []) if option != {"type": "null"}]
    return schema | (options[0] if len(options) == 1 else {"anyOf": options} if options else {})
