"""OpenAPI links: which operations an answer leads on to.

Ids tell: where a field of an answer has the pattern of an operation's path parameter, it is what that takes.
"""

from collections.abc import Iterator
from typing import Any

_JSON = "application/json"


def add_links(document: dict[str, Any]) -> None:
    """Write the links of all answers of a document whose operations are complete."""
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    targets = list(_targets(operations))
    for operation in operations:
        for status, answer in operation["responses"].items():
            if status < "300":
                links = _links(answer["content"][_JSON]["schema"], document["components"]["schemas"], targets)
                answer.update({"links": links} if links else {})


def _targets(operations: list[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Tell the pattern and the name of each path parameter, with its operation."""
    for operation in operations:
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path" and "pattern" in parameter["schema"]:
                yield parameter["schema"]["pattern"], parameter["name"], operation


def _links(
    schema: dict[str, Any], schemas: dict[str, Any], targets: list[tuple[str, str, dict[str, Any]]]
) -> dict[str, Any]:
    links: dict[str, Any] = {}
    for pointer, pattern in _ids(_resolve(schema, schemas), schemas):
        for wanted, name, operation in targets:
            if wanted == pattern:
                link = {
                    "operationId": operation["operationId"],
                    "parameters": {name: f"$response.body#/{pointer}"},
                    "description": operation["summary"],
                }
                links.setdefault(operation["operationId"], link)
    return links


def _ids(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Tell pointer and pattern of each field that has a pattern and is never null; of a list those of its first one."""
    for name, field in schema.get("properties", {}).items():
        if name == "data" and "items" in field:
            yield from ((f"data/0/{below}", found) for below, found in _ids(_resolve(field["items"], schemas), schemas))
        elif "pattern" in field:
            yield name, field["pattern"]


def _resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found
