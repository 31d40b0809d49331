"""The HTTP API."""

from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from werkzeug.middleware.proxy_fix import ProxyFix

from ctrip import __version__
from ctrip.context import Context
from ctrip.web import access, cors, docs, errors, health
from ctrip.web.admin import audit_log, dead_letters, jobs, loops, merchants, queues
from ctrip.web.api import chains, events, payments, webhook_deliveries, webhook_endpoints
from ctrip.web.bodies import Bodies
from ctrip.web.limits import READ_AT_MOST_BYTES, BoundedRequest
from ctrip.web.schemas import Problem

_DESCRIPTION = (
    "Ask for a payment, get an address, hear of every step. Amounts are decimal strings, times RFC 3339 in UTC. "
    "Every refusal is an RFC 9457 problem; its `code` is stable. A path that there is not is 404, and a "
    "method that a path does not answer 405 with `Allow`. Lists are read page by page with `starting_after`."
)


def create_app(ctx: Context) -> OpenAPI:
    """Build the WSGI application. It holds nothing but `ctx`: any number of processes may serve it."""
    app = OpenAPI(
        "ctrip.web",
        info=Info(title="cTrip", version=__version__, description=_DESCRIPTION),
        security_schemes={"apiKey": {"type": "http", "scheme": "bearer", "description": "`sk_…`"}},
        validation_error_model=Problem,
        validation_error_callback=errors.refuse_values,
        doc_ui=False,
    )
    app.extensions["ctrip"] = ctx
    app.extensions["bodies"] = Bodies()
    app.request_class = BoundedRequest
    app.config.update(MAX_CONTENT_LENGTH=READ_AT_MOST_BYTES, PROVIDE_AUTOMATIC_OPTIONS=False)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    # A doubled slash would otherwise be answered with a redirect to whatever stands in the path.
    app.url_map.merge_slashes = False
    if ctx.settings.trusted_proxies:
        proxies = ctx.settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)  # type: ignore[method-assign]
    access.install(app)
    cors.install(app)
    errors.install(app)
    api = (payments, events, webhook_endpoints, webhook_deliveries, chains)
    for part in (*api, merchants, jobs, loops, queues, dead_letters, audit_log, health):
        app.register_api(part.blueprint)
    app.register_blueprint(docs.blueprint)
    access.show_zeros(app)
    return app
