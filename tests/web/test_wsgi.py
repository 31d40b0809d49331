"""`wsgi.py` under Granian, as it is run: what it answers, how it ends, and how it refuses to start."""

import socket
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import requests

from ctrip.context import Context
from tests.api import Api
from tests.conftest import SECRETS_KEY, XPUB
from tests.waiting import wait_until
from tests.web.granian import answers, api_environment, free_port, granian, serving

pytestmark = pytest.mark.infra


@pytest.fixture
def environment(postgres_url: str, tmp_path: Path) -> dict[str, str]:
    return api_environment(postgres_url, tmp_path)


def test_it_serves_counts_and_limits_what_comes_over_the_wire(
    environment: dict[str, str], shop: Api, api_ctx: Context
) -> None:
    metrics_port = free_port()
    with serving(environment | {"METRICS_PORT": str(metrics_port)}) as (_, url):
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {shop.key}"
        made = session.post(f"{url}/api/v1/payments", json={"chain": "anvil", "amount": "1"}, timeout=10)
        assert made.status_code == 201
        assert session.get(f"{url}/api/v1/payments/{made.json()['id']}", timeout=10).json() == made.json()

        # A chunked body has no length to refuse it by: it is counted as it is read.
        json_type = {"Content-Type": "application/json"}
        chunked = session.post(f"{url}/api/v1/payments", data=iter([b"{", b" " * 65_534, b"}"]), headers=json_type)
        assert (chunked.status_code, chunked.json()["param"]) == (422, "chain")
        chunked = session.post(f"{url}/api/v1/payments", data=iter([b"{", b" " * 65_535, b"}"]), headers=json_type)
        assert (chunked.status_code, chunked.json()["code"]) == (413, "payload_too_large")

        assert unfinished(url).startswith("HTTP/1.1 401"), "who has no key cannot keep a thread waiting for a body"

        page = requests.get(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10).text
        assert 'ctrip_http_requests_total{route="POST /api/v1/payments",status="201"} 1.0' in page
        assert 'ctrip_http_requests_total{route="GET /api/v1/payments/<payment_id>",status="200"} 1.0' in page
        assert 'ctrip_http_request_duration_seconds_count{route="POST /api/v1/payments"}' in page
        assert made.json()["id"] not in page


def unfinished(url: str) -> str:
    """Announce a body, send a part of it, and read what is answered meanwhile."""
    host, port = url.removeprefix("http://").split(":")
    head = "POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{}"
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(head.encode())
        return connection.recv(4096).decode()


def test_a_killed_master_takes_its_worker_along(environment: dict[str, str], shop: Api) -> None:
    with serving(environment) as (master, url):
        assert requests.get(f"{url}/livez", timeout=5).status_code == 200
        master.kill()
        wait_until(lambda: not answers(url), within_s=10, what="the port is free again")


def refused(environment: dict[str, str]) -> str:
    """Start the API and return all that it said; it must end by itself, with an exit code that is not 0."""
    child = granian(environment, free_port(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = child.communicate(timeout=30)
    assert child.returncode != 0
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    "changes",
    [
        {"SECRETS_KEY": "c2VjcmV0", "CHAINS_FILE": "/nowhere/chains.yaml"},
        {"DATABASE_URL": "postgresql://ctrip:hunter2@127.0.0.1:1/ctrip"},
    ],
    ids=", ".join,
)
def test_what_is_set_wrong_is_one_message_without_a_secret(
    environment: dict[str, str], sessions: object, changes: dict[str, str]
) -> None:
    said = refused(environment | changes)
    assert [said.count(named) for named in changes] == [1] * len(changes)
    for secret in (XPUB[10:-10], "hunter2", "c2VjcmV0", SECRETS_KEY):
        assert secret not in said


def test_a_taken_metrics_port_is_named(environment: dict[str, str], sessions: object) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        assert f"METRICS_PORT: cannot listen on 127.0.0.1:{port}" in refused(environment | {"METRICS_PORT": str(port)})
