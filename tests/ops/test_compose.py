"""docker-compose.yml: valid by the Compose specification, and its commands run as they are written."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import requests
import sqlalchemy as sa
from redis import Redis

from actors import QUEUES
from actors.broker import NAMESPACE
from actors.queues import Queues
from ctrip.context import Context
from ctrip.local.children import free_port
from tests.ops import compose, tools
from tests.ops.compose import Container, Machine
from tests.stack import PORTS, ROOT
from tests.waiting import wait_until

SCHEMA = Path(__file__).with_name("resources") / "compose-spec.json"
OURS = ("api", *QUEUES, "scheduler")
HOLDS = {
    "logins": {"database_url", *(f"database_url_{user}" for user in ("migrator", "api", "worker", "scheduler"))},
    "migrate": {"database_url_migrator"},
    "api": {"database_url_api", "wallet_xpub", "secrets_key"},
    "listener": {"database_url_worker"},
    "sweeper": {"database_url_worker", "wallet_xpub", "wallet_mnemonic", "gas_key"},
    "webhook": {"database_url_worker", "secrets_key"},
    "email": {"database_url_worker", "smtp_url"},
    "scheduler": {"database_url_scheduler"},
}
USERS = {"migrate": "migrator", "api": "api", "scheduler": "scheduler"}
"""Who a service is to Postgres; all others are `worker`."""


def faults(content: Any) -> list[str]:
    validator = jsonschema_rs.Draft7Validator(json.loads(SCHEMA.read_text()))
    return [f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(content)]


def test_the_file_is_what_the_compose_specification_says() -> None:
    assert faults(compose.read()) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("services", "api", "comand"), ["x"]),
        (("services", "redis", "image"), 9),
        (("services", "redis", "healthcheck", "interval"), 5),
        (("services", "api", "depends_on", "redis", "condition"), "service_ready"),
        (("secret",), {}),
    ],
)
def test_a_fault_in_the_file_is_found(path: tuple[str, ...], value: object) -> None:
    content = json.loads(json.dumps(compose.read()))  # a copy in which nothing is shared by an anchor
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert faults(content) != []


def test_what_the_services_name_exists() -> None:
    content = compose.read()
    services = content["services"]
    assert set(services) == {*HOLDS, "postgres", "redis", "prometheus", "grafana"}
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        assert set(service.get("secrets", ())) <= set(content["secrets"]), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in content["volumes"], (name, volume)
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), (name, port)
        if "build" not in service:
            assert service["image"].split(":")[1] != "latest", name


def test_each_service_holds_the_secrets_of_its_role_alone() -> None:
    services = compose.read()["services"]
    assert {name: set(services[name]["secrets"]) for name in HOLDS} == HOLDS
    grafana = services["grafana"]["environment"]
    assert grafana["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_admin_password"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in grafana
    assert grafana["GF_AUTH_ANONYMOUS_ENABLED"] == "false"


@contextmanager
def started(container: Container, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("ab") as output:
        child = subprocess.Popen(
            container.command, cwd=ROOT, env=container.environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def machine(environment: dict[str, str], ctx: Context, tmp_path: Path) -> Machine:
    secrets = {
        name: environment[name.upper()]
        for name in ("database_url", "wallet_xpub", "wallet_mnemonic", "gas_key", "secrets_key")
    }
    for user in ("migrator", "api", "worker", "scheduler"):
        secrets[f"database_url_{user}"] = secrets["database_url"].replace("//ctrip@", f"//{user}:of%20{user}@")
    places = {
        "redis://redis:6379/0": environment["REDIS_URL"],
        "/app/chains.yaml": environment["CHAINS_FILE"],
        "0.0.0.0": "127.0.0.1",
    }
    return Machine(tmp_path, {**places, "/app": str(ROOT)}, {**secrets, "smtp_url": "smtp://127.0.0.1:1"})


@pytest.mark.infra
def test_the_commands_run_as_they_are_written(machine: Machine, redis_client: Redis, ctx: Context) -> None:
    pages = {name: free_port(24_100 + PORTS + 10 * place) for place, name in enumerate(OURS)}
    api = free_port(24_000 + PORTS)
    for name in ("logins", "migrate"):
        first = compose.container(name, machine, ports={})
        ended = subprocess.run(first.command, cwd=ROOT, env=first.environment, timeout=60, check=False)
        assert ended.returncode == 0, name
    with ctx.sessions.begin() as session:
        # The tests' Postgres does not wait for its disk, and production asks for one that does.
        for user in ("api", "worker", "scheduler"):
            session.execute(sa.text(f"ALTER ROLE {user} SET synchronous_commit = on"))
    with ExitStack() as running:
        containers = {name: compose.container(name, machine, ports={"9100": pages[name], "8000": api}) for name in OURS}
        children = {
            name: running.enter_context(started(each, machine.folder / name / "log"))
            for name, each in containers.items()
        }
        said = f"see {machine.folder}/*/log"
        queues = Queues(redis_client, namespace=NAMESPACE, heartbeat_timeout_ms=30_000)
        wait_until(lambda: all(each.workers == 1 for each in queues.depths(QUEUES)), within_s=60, what=said)
        wait_until(lambda: ready(f"http://127.0.0.1:{api}") == "ok", within_s=30, what=said)
        check = compose.read()["services"]["api"]["healthcheck"]["test"]
        assert check[0] == "CMD"
        command = [word.replace(":8000", f":{api}") for word in check[1:]]
        subprocess.run(command, env=containers["api"].environment, timeout=10, check=True)
        shown = requests.get(f"http://127.0.0.1:{pages['scheduler']}/metrics", timeout=5).text
        for queue in QUEUES:
            assert f'ctrip_queue_workers{{queue="{queue}"}} 1.0\n' in shown
        assert 'ctrip_loop_enabled{loop="listener:31337"} 1.0\n' in shown
        assert users(ctx) == {f"ctrip-{name}": USERS.get(name, "worker") for name in OURS}
        for name, port in pages.items():
            own = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
            assert "ctrip_build_info{" in own, name
            if name in QUEUES:
                assert 'ctrip_actor_runs_total{actor="' in own
                assert all(f'queue="{other}"' not in own for other in QUEUES if other != name), "counters of its own"
        for child in children.values():
            child.terminate()
        codes = {name: child.wait(containers[name].stop_within_s) for name, child in children.items()}
    assert codes == dict.fromkeys(OURS, 0), said


def users(ctx: Context) -> dict[str, str]:
    """Who each process is to Postgres."""
    query = sa.text("SELECT DISTINCT application_name, usename::text FROM pg_stat_activity WHERE usename <> 'ctrip'")
    with ctx.sessions.begin() as session:
        return {name: user for name, user in session.execute(query) if user in {"api", "worker", "scheduler"}}


def ready(url: str) -> str | None:
    try:
        status: str = requests.get(f"{url}/readyz", timeout=5).json()["status"]
    except requests.RequestException:
        return None
    return status


@pytest.mark.infra
def test_prometheus_starts_with_the_flags_and_the_configuration_that_are_shipped(tmp_path: Path) -> None:
    service = compose.read()["services"]["prometheus"]
    words = " ".join(service["command"])
    words = words.replace("/etc/prometheus/", f"{ROOT}/ops/prometheus/").replace("=/prometheus", f"={tmp_path}/data")
    port = free_port(24_300 + PORTS)
    command = [str(tools.find("prometheus")), *words.split(), f"--web.listen-address=127.0.0.1:{port}"]
    with started(Container(command, {}, stop_within_s=10), tmp_path / "log"):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/-/ready"), within_s=20, what=f"it is ready, see {tmp_path}/log")
        groups = requests.get(f"{url}/api/v1/rules", timeout=5).json()["data"]["groups"]
        assert sum(len(group["rules"]) for group in groups) > 30


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False
