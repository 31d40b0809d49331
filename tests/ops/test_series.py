"""A real Prometheus scrapes the running stack: what panels and alerts select exists, and no label carries an id."""

import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
import yaml

from tests.ops.prometheus import SHIPPED, Prometheus, scraping, selectors
from tests.shop import Shop
from tests.sink import Sink
from tests.stack import ROOT, RunningStack
from tests.waiting import wait_until

pytestmark = pytest.mark.infra
DASHBOARDS = sorted((ROOT / "ops" / "grafana" / "dashboards").glob("*.json"))
ONLY_SOMETIMES = {"Waiting for somebody"}
"""Panels that show what is above zero."""
IDS = re.compile(
    r"(pay|trf|evt|whe|whd|swp|mer|key|job|dlt|req|eml|sk)_[0-9A-Za-z]{16,}"  # ours
    r"|(?<![0-9A-Za-z])[0-9A-HJKMNP-TV-Z]{26}(?![0-9A-Za-z])|[0-9a-f]{8}-[0-9a-f]{4}-|0x[0-9a-fA-F]{40}|[0-9a-f]{32}"
)


FAMILIES = (
    *("queue_messages", "queue_oldest_message_age_seconds", "queue_delayed_overdue_seconds"),
    *("queue_stranded_messages", "queue_workers"),
    *("redis_memory_bytes", "redis_connections", "actor_runs_total"),
    *("actor_duration_seconds", "actor_wait_seconds", "actor_retries_total"),
    *("actor_errors_total", "dead_letters_total", "dead_letters"),
    *("dead_letters_replayed_total", "loop_last_tick_timestamp_seconds"),
    *("loop_interval_seconds", "loop_claims_total", "loop_kicks_total"),
    *("chain_head_block", "chain_read_block", "chain_final_block"),
    *("chain_lag_blocks", "reorgs_total", "rpc_requests_total"),
    *("transfers_unverified", "endpoint_resting", "endpoint_behind_blocks"),
    *("chain_unread_blocks", "chain_disagreements_total", "token_upgrades_total", "balance_mismatches_total"),
    "token_unconfirmed",
    *("rpc_request_duration_seconds", "payments", "payment_detect_seconds"),
    *("webhook_attempts_total", "webhook_pending", "webhook_oldest_pending_age_seconds"),
    *("sweeps_total", "sweeps_pending", "gas_balance"),
    *("rate_age_seconds", "rates_unavailable", "rate_refusals_total"),
    *("http_requests_total", "http_request_duration_seconds", "build_info"),
)
"""What is promised to operators, whose own dashboards and alerts rest on it."""


def queries() -> dict[str, str]:
    """Every expression that is shipped, by where it stands."""
    found: dict[str, str] = {}
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", ()):
                # Grafana makes four scrape intervals of it at least.
                found[f"{panel['title']}: {target['refId']} of {file.stem}"] = target["expr"].replace(
                    "$__rate_interval", "1m"
                )
    for file in (SHIPPED / "rules").glob("*.yml"):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                name = rule.get("alert") or rule["record"]
                found[f"{name} of {file.stem} {rule['labels']['severity'] if 'alert' in rule else ''}"] = rule["expr"]
    return found


def wait_for_none(ask: Callable[[], list[str]]) -> None:
    """Wait until the answer is an empty list, and show the last one where it never is."""
    left: list[str] = []

    def is_over() -> bool:
        left[:] = ask()
        return not left

    try:
        wait_until(is_over, within_s=20, every_s=0.5)
    except AssertionError:
        assert left == []


@pytest.fixture(scope="module")
def prometheus(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    pages = {name: urlsplit(stack["metrics"][name]).netloc for name in ("api", "worker", "scheduler")}
    # The workers of this stack share a folder of counters: one of their pages shows them all.
    with scraping(tmp_path_factory.mktemp("prometheus"), {name: [page] for name, page in pages.items()}) as running:
        shop = Shop(stack.facts())
        with Sink() as sink:
            payment = shop.ask("0.01", webhook_url=sink.url)
            shop.pay(payment)
            shop.wait_for(payment, "confirmed", within_s=30)
            wait_until(lambda: "payment.confirmed" in sink.types(payment["id"]), within_s=30)
        yield running


def test_every_series_that_is_selected_exists(prometheus: Prometheus) -> None:
    selected = {selector for expression in queries().values() for selector in selectors(expression)}
    assert len(selected) > 60
    wait_for_none(lambda: sorted(each for each in selected if not prometheus.query(f"count({each})")))


def test_every_query_is_understood_and_every_panel_shows_something(prometheus: Prometheus) -> None:
    for expression in queries().values():
        prometheus.query(expression)
    panels = {where: what for where, what in queries().items() if where.split(": ")[0] not in (where, *ONLY_SOMETIMES)}
    assert len(panels) > 60
    wait_for_none(lambda: sorted(where for where, what in panels.items() if not prometheus.query(what)))


def test_every_family_of_the_contract_is_there(prometheus: Prometheus) -> None:
    shown = {re.sub(r"_(bucket|sum|count)$", "", labels["__name__"]) for labels in prometheus.series()}
    assert {f"ctrip_{name}" for name in FAMILIES} - shown == set()


def test_no_label_of_any_series_carries_an_id(prometheus: Prometheus) -> None:
    for labels in prometheus.series():
        for name, value in labels.items():
            assert not IDS.search(value), (labels["__name__"], name, value)


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("pay_01M821GFF6WZS8RCEQEXMTGDEM", True),
        ("listener:1_01ARZ3NDEKTSV4RRFFQ69G5FAV", True),
        ("/payments/01ARZ3NDEKTSV4RRFFQ69G5FAV", True),
        ("0x1563915e194D8CfBA1943570603F7606A3115508", True),
        ("018f3c6e-8f6d-7c3a-9b1e-2f4d5a6b7c8d", True),
        ("job_scan_now", False),
        ("GET /api/v1/payments/<string:payment_id>", False),
        ("sweeper:31337", False),
        ("127.0.0.1:28545", False),
    ],
)
def test_an_id_is_known_where_it_stands(value: str, is_one: bool) -> None:
    assert bool(IDS.search(value)) is is_one


def test_the_shipped_scrape_counts_each_run_once(prometheus: Prometheus) -> None:
    pages = {labels["instance"] for labels in prometheus.series() if labels["__name__"] == "ctrip_actor_runs_total"}
    assert len(pages) == 1
    by_series = prometheus.query("count by (queue, actor, outcome) (ctrip_actor_runs_total) > 1")
    assert by_series == []
