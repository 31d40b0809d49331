"""`/openapi.json`, and `/docs`: the same document as one page for people, with nothing loaded from elsewhere."""

from typing import Any, cast

from flask import Blueprint, Response, current_app, jsonify, redirect, render_template, url_for
from flask_openapi3.openapi import OpenAPI
from markupsafe import Markup
from werkzeug.wrappers import Response as BaseResponse

from ctrip.web.errors import codes
from ctrip.web.openapi import make_document
from ctrip.web.quotas import spend_of_address

blueprint = Blueprint("docs", __name__)
blueprint.before_request(spend_of_address)

_STYLES_ALONE = "default-src 'none'; style-src 'self'; frame-ancestors 'none'"


@blueprint.app_template_filter("words")
def words(text: str | None) -> Markup:
    """Write a description for a page: what stands between backticks is code."""
    parts = (text or "").split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


@blueprint.get("/")
def index() -> BaseResponse:
    """Lead whoever opens the API in a browser to the page that tells of it."""
    return redirect(url_for("docs.docs"))


@blueprint.get("/openapi.json")
def openapi_json() -> Response:
    """Serve the OpenAPI document."""
    return jsonify(_document())


@blueprint.get("/docs")
def docs() -> Response:
    """Serve the document as a page."""
    page = Response(render_template("docs.html", document=_document(), codes=sorted(codes(), key=lambda c: c[1])))
    page.headers["Content-Security-Policy"] = _STYLES_ALONE
    return page


def _document() -> dict[str, Any]:
    """Return the document, made when somebody first asks for it: it takes a fifth of a second."""
    documents = current_app.extensions
    if "openapi" not in documents:
        documents["openapi"] = make_document(cast(OpenAPI, current_app))
    return cast(dict[str, Any], documents["openapi"])
