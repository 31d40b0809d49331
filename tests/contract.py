"""The OpenAPI document as a judge: whether an answer is one that the document promises."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
from flask import Flask
from werkzeug.exceptions import HTTPException

from ctrip.web.openapi import make_document

PROBLEM = "application/problem+json"
ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
"""The body of an id that nothing has."""
_JSON = "application/json"
_UNDOCUMENTED = {"/", "/docs", "/openapi.json", "/static/<path:filename>"}
_made: list["Contract"] = []


def contract_of(app: Flask) -> "Contract":
    """The document's judge. Every application has the same document, so it is made once."""
    if not _made:
        document = app.extensions.setdefault("openapi", None) or make_document(app)  # type: ignore[arg-type]
        app.extensions["openapi"] = document
        _made.append(Contract(json.loads(json.dumps(document))))
    return _made[0]


class Contract:
    """Compares answers with what the document promises for them."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.seen: set[tuple[str, str]] = set()
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Tell method, path and Operation Object of each operation."""
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                yield method.upper(), path, operation

    def scope(self, operation: dict[str, Any]) -> str | None:
        """The scope that a key needs for an operation; None where none is needed."""
        return operation["security"][0]["apiKey"][0] if operation["security"] else None

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A schema, or the one that it refers to."""
        return self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    def body_schema(self, operation: dict[str, Any]) -> dict[str, Any] | None:
        """The schema of an operation's body, which may be a reference; None where it has none."""
        body = operation.get("requestBody")
        return None if body is None else body["content"][_JSON]["schema"]

    def allows(self, schema: dict[str, Any], instance: Any) -> bool:
        """Whether a value is one that a schema of the document describes."""
        return self._validator(schema).is_valid(instance)

    def judge(self, app: Flask, answer: Any) -> None:
        """Fail where an answer is none that the document promises to its request."""
        template = _template(app, answer.request.method, answer.request.path)
        if template is not None:
            self.holds(answer, answer.request.method, template)
        elif answer.status_code >= 400:
            assert answer.content_type == PROBLEM, answer.text

    def holds(self, answer: Any, method: str, template: str) -> Any:
        """Fail where an answer of a route is none that the document promises. Returns the answer."""
        where = f"{method} {template} -> {answer.status_code}"
        responses = self.document["paths"][template][method.lower()]["responses"]
        promised = responses.get(str(answer.status_code))
        assert promised is not None, f"{where} is not documented: {answer.text}"
        ((content_type, content),) = promised["content"].items()
        assert answer.content_type == content_type, where
        try:
            self._validator(content["schema"]).validate(answer.json)
        except jsonschema_rs.ValidationError as error:
            raise AssertionError(f"{where}: {error} in {answer.text}") from error
        for name, reference in promised["headers"].items():
            header = self.document["components"]["headers"][reference["$ref"].rpartition("/")[2]]
            assert name in answer.headers or not header.get("required"), f"{where}: {name}"
        self.seen.add((method, template))
        return answer

    def _validator(self, schema: dict[str, Any]) -> jsonschema_rs.Validator:
        name = json.dumps(schema)
        if name not in self._validators:
            whole = schema | {"components": self.document["components"]}
            self._validators[name] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        return self._validators[name]


def _template(app: Flask, method: str, path: str) -> str | None:
    """The path of the document that a request belongs to; None for what the document does not tell of."""
    try:
        rule, _ = app.url_map.bind("localhost").match(
            path, method="GET" if method == "HEAD" else method, return_rule=True
        )
    except HTTPException:
        return None
    if rule.rule in _UNDOCUMENTED or method == "HEAD":
        return None
    return str(rule.rule).replace("<", "{").replace(">", "}")
