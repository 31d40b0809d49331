"""Every metric that a process counts itself, and the page that shows them.

Gauges of shared state (queue depths, chain heights, payments by status) are not here: the scheduler reads them from
rows at each scrape. Workers of one machine share the folder PROMETHEUS_MULTIPROC_DIR, which must be set before this
module is imported; their counters then add up on one page. No label ever carries an id, an address or a URL's path.

rate() and increase() see the first event of a series only where the series stood at zero before it. So whoever counts
outcomes shows all of them from its start, or from the first one on; the outcomes are listed here.
"""

import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, get_args

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MutexValue, ValueClass

from ctrip import __version__
from ctrip.errors import MisconfiguredError

# A `_created` series beside each counter would double the pages, and nothing asks for them.
disable_created_metrics()  # type: ignore[no-untyped-call]

_QUICK_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_REQUEST_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_DETECT_S = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 300)

RUN_OUTCOMES = ("success", "retry", "dead", "skipped")
CLAIM_OUTCOMES = ("won", "lost", "fenced_out")
Disagreement = Literal["empty_logs", "logs", "receipt", "fork", "time", "head", "tag", "balance"]
"""What an endpoint said that contradicts itself or another."""
DISAGREEMENTS: tuple[str, ...] = get_args(Disagreement)
RPC_OUTCOMES = ("ok", "refused", "limited", "error")
ATTEMPT_OUTCOMES = ("delivered", "retry", "dead")
EMAIL_OUTCOMES = ("sent", "retry", "dead", "skipped")
SWEEP_OUTCOMES = (
    *("planned", "topup_planned", "signed", "sent", "raised", "mined", "reverted", "done", "failed", "held"),
)

ACTOR_RUNS = Counter(
    "ctrip_actor_runs_total",
    "Runs of an actor that ended, by outcome: success, retry, dead or skipped.",
    ["queue", "actor", "outcome"],
)
ACTOR_DURATION = Histogram("ctrip_actor_duration_seconds", "How long a run took.", ["queue", "actor"], buckets=_QUICK_S)
ACTOR_WAIT = Histogram(
    "ctrip_actor_wait_seconds",
    "How long a message waited between the moment it was due and its run.",
    ["queue", "actor"],
    buckets=_QUICK_S,
)
ACTOR_RETRIES = Counter(
    "ctrip_actor_retries_total",
    "Tries that are to be made again, by reason: the class of an exception, or what the domain calls it.",
    ["queue", "actor", "reason"],
)
ACTOR_ERRORS = Counter("ctrip_actor_errors_total", "Exceptions that left an actor, by class.", ["actor", "exception"])
DEAD_LETTERS = Counter("ctrip_dead_letters_total", "Messages that died.", ["queue", "actor", "reason"])
DEAD_LETTERS_REPLAYED = Counter("ctrip_dead_letters_replayed_total", "Dead letters that were sent again.")
LOOP_CLAIMS = Counter(
    "ctrip_loop_claims_total",
    "Messages of a loop, by what came of their claim: won, lost or fenced_out.",
    ["loop", "outcome"],
)
LOOP_KICKS = Counter("ctrip_loop_kicks_total", "Loops that the watchdog started or revived.", ["loop"])
REORGS = Counter("ctrip_reorgs_total", "Reorganisations that took blocks which had been read.", ["chain"])
CHAIN_DISAGREEMENTS = Counter(
    "ctrip_chain_disagreements_total", "Endpoints that contradicted themselves or another, by kind.", ["chain", "kind"]
)
TOKEN_UPGRADES = Counter(
    "ctrip_token_upgrades_total", "Listed tokens whose proxy got another implementation.", ["chain", "token"]
)
TOKEN_UNCONFIRMED = Gauge(
    "ctrip_token_unconfirmed",
    "1 where the contract of a listed token has not told the decimals that it is listed with.",
    ["chain", "token"],
    multiprocess_mode="mostrecent",
)
BALANCE_MISMATCHES = Counter(
    "ctrip_balance_mismatches_total", "Balances of less coin than the rows say: rows or node are wrong.", ["chain"]
)
HEADS = Counter(
    "ctrip_heads_total", "New heads that were told over WebSocket, and may have woken a listener.", ["chain"]
)
HEADS_CONNECTED = Gauge(
    "ctrip_heads_connected",
    "1 where an endpoint's WebSocket tells new heads, 0 where polling alone is left.",
    ["chain", "endpoint"],
    multiprocess_mode="max",
)
RPC_REQUESTS = Counter(
    "ctrip_rpc_requests_total", "JSON-RPC calls, by outcome.", ["chain", "endpoint", "method", "outcome"]
)
RPC_REQUEST_DURATION = Histogram(
    "ctrip_rpc_request_duration_seconds",
    "How long a JSON-RPC call took.",
    ["chain", "endpoint", "method"],
    buckets=_REQUEST_S,
)
# Each process knows of an endpoint what it was told itself. Whoever looked last knows best: a maximum would keep what a
# process saw that has not looked since.
ENDPOINT_RESTING = Gauge(
    "ctrip_endpoint_resting",
    "1 where an endpoint is passed over: it failed last, contradicted itself or another, refuses what reading takes, "
    "or limits the rate.",
    ["chain", "endpoint"],
    multiprocess_mode="mostrecent",
)
ENDPOINT_BEHIND_BLOCKS = Gauge(
    "ctrip_endpoint_behind_blocks",
    "How far the newest block that an endpoint told of is behind the newest that any endpoint of its chain told of.",
    ["chain", "endpoint"],
    multiprocess_mode="mostrecent",
)
PAYMENT_DETECT = Histogram(
    "ctrip_payment_detect_seconds",
    "From the time of the completing block to the moment that `detected` was stored.",
    ["chain"],
    buckets=_DETECT_S,
)
WEBHOOK_ATTEMPTS = Counter("ctrip_webhook_attempts_total", "Webhook attempts, by outcome.", ["outcome"])
EMAIL_ATTEMPTS = Counter("ctrip_email_attempts_total", "E-mails that were tried or skipped, by outcome.", ["outcome"])
SWEEPS = Counter("ctrip_sweeps_total", "Sweeps, by what became of them.", ["chain", "outcome"])
RATE_REFUSALS = Counter(
    "ctrip_rate_refusals_total", "What a source of rates told, or did not, and could not be used.", ["source", "reason"]
)
HTTP_REQUESTS = Counter("ctrip_http_requests_total", "Requests answered by the API.", ["route", "status"])
HTTP_REQUEST_DURATION = Histogram(
    "ctrip_http_request_duration_seconds", "How long the API took to answer.", ["route"], buckets=_REQUEST_S
)
SCHEDULER_TASK_LAST_RUN = Gauge(
    "ctrip_scheduler_task_last_run_timestamp_seconds",
    "When a scheduler last ended a run of this task, one that only found Postgres or Redis away included.",
    ["task"],
    multiprocess_mode="max",
)
BUILD_INFO = Gauge(
    "ctrip_build_info", "Always 1; the label says which version runs.", ["version"], multiprocess_mode="max"
)
BUILD_INFO.labels(version=__version__).set(1)


@cache
def loop_claims(loop: str) -> dict[str, Counter]:
    """Return a loop's counters by outcome: all are there from its first claim on, and are looked up once."""
    return {outcome: LOOP_CLAIMS.labels(loop=loop, outcome=outcome) for outcome in CLAIM_OUTCOMES}


def render(registry: CollectorRegistry | None = None) -> bytes:
    """Return the page in Prometheus' text format.

    Without a `registry`: all that this process counts, or, where PROMETHEUS_MULTIPROC_DIR is set, all that the
    processes which share that folder count.
    """
    # The library has read the variable when it was imported, and chose the class of its values by it.
    if registry is None and ValueClass is not MutexValue:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry or REGISTRY)


def make_server(*, host: str, port: int, registry: CollectorRegistry | None = None) -> ThreadingHTTPServer:
    """Build the server of `/metrics`; port 0 takes a free one. Raises OSError where the port is taken."""

    class Page(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            """Answer with the page, whatever the path."""
            body = render(registry)
            self.send_response(200)
            # Always the classic format: in OpenMetrics the counter and the gauge of dead letters would share a name.
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep scrapes out of the log."""

    return ThreadingHTTPServer((host, port), Page)


def serve(*, host: str, port: int, registry: CollectorRegistry | None = None) -> ThreadingHTTPServer:
    """Serve `/metrics` from a thread of this process. Raises MisconfiguredError where the port is taken."""
    try:
        server = make_server(host=host, port=port, registry=registry)
    except OSError as error:
        raise MisconfiguredError(f"METRICS_PORT: cannot listen on {host}:{port}: {error.strerror}") from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
