"""The whole stack: what it tells, who holds keys, what it survives, and that nothing stays behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa
from redis import Redis
from redis.exceptions import RedisError

from tests.stack import ROOT, RunningStack, is_alive
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

MASTERS = {"api", "worker.listener", "worker.sweeper", "worker.webhook", "worker.email", "scheduler"}


def create(stack: RunningStack, **fields: str) -> dict[str, str]:
    answer = requests.post(
        stack["api"] + "/api/v1/payments",
        json={"chain": stack["chain"], "amount": "0.1", **fields},
        headers={"Authorization": f"Bearer {stack['api_key']}"},
        timeout=10,
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def find(stack: RunningStack, payment_id: str) -> dict[str, str]:
    key = {"Authorization": f"Bearer {stack['api_key']}"}
    return requests.get(f"{stack['api']}/api/v1/payments/{payment_id}", headers=key, timeout=10).json()


def test_stack_json_tells_all_that_a_test_needs_to_its_owner_alone(stack: RunningStack) -> None:
    assert (stack.folder / "stack.json").stat().st_mode & 0o777 == 0o600
    facts = stack.facts()
    assert set(facts) >= {
        *("api", "api_key", "admin_key", "webhook_secret", "chain_rpc", "chain", "chain_id", "tokens", "treasury"),
        *("faucet", "database_url", "redis_url", "metrics", "pids"),
    }
    assert set(facts["pids"]) == MASTERS
    assert (facts["chain"], facts["chain_id"]) == ("anvil", 31337)
    (usdc,) = facts["tokens"]
    assert (usdc["symbol"], usdc["decimals"]) == ("USDC", 6)
    chain = stack.chain()
    assert chain.balance(bytes.fromhex(facts["faucet"][2:]), bytes.fromhex(usdc["address"][2:])) > 0
    for name in ("api", "worker", "scheduler"):
        assert "ctrip_" in requests.get(facts["metrics"][name], timeout=5).text


def test_the_files_with_secrets_are_their_owners_alone(stack: RunningStack) -> None:
    for name in ("keys.json", "credentials.json", "env", "stack.json"):
        assert (stack.folder / name).stat().st_mode & 0o777 == 0o600


def test_keys_are_in_the_environment_of_the_sweeper_and_its_forks_alone(stack: RunningStack) -> None:
    keys = json.loads((stack.folder / "keys.json").read_text())
    holders = {}
    for pid, command in {os.getpid(): "us", stack.supervisor.pid: "supervisor", **stack.family()}.items():
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        told = {name for name in ("mnemonic", "gas_key") if keys[name] in environment}
        if told or "WALLET_MNEMONIC" in environment or "GAS_KEY" in environment:
            holders[pid] = command
    assert stack.pids()["worker.sweeper"] in holders
    assert all("actors.sweeper" in command for command in holders.values()), holders


def test_each_process_connects_as_a_member_of_its_group(stack: RunningStack) -> None:
    engine = sa.create_engine(stack["database_url"].replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect() as connection:
        query = "SELECT DISTINCT application_name, usename::text FROM pg_stat_activity WHERE usename IS NOT NULL"
        users = {process: user for process, user in connection.execute(sa.text(query)) if process.startswith("ctrip-")}
    engine.dispose()
    workers = dict.fromkeys(("ctrip-listener", "ctrip-sweeper", "ctrip-webhook", "ctrip-scheduler"), "worker")
    assert users.items() >= {"ctrip-api": "api", **workers}.items()


def test_keys_are_on_no_command_line_and_in_no_line_of_the_log(stack: RunningStack) -> None:
    keys = json.loads((stack.folder / "keys.json").read_text())
    spoken = stack.log.read_text() + " ".join(stack.family().values())
    for name in ("mnemonic", "gas_key", "secrets_key", "xpub"):
        assert keys[name] not in spoken


@pytest.mark.parametrize("name", ["worker.webhook", "scheduler", "api"])
def test_a_killed_process_is_back_without_its_old_forks(stack: RunningStack, name: str) -> None:
    old = stack.pids()[name]
    forks = [pid for pid in stack.family() if pid not in stack.pids().values() and _parent(pid) == old]
    stack.kill(name)
    stack.wait_restarted(name, old_pid=old)
    wait_until(lambda: not any(is_alive(pid) for pid in (old, *forks)), within_s=10)
    ready = stack["api"] + "/readyz" if name == "api" else stack["metrics"][name]
    wait_until(lambda: _answers(ready), within_s=30, what=f"{name} answers again")


def test_a_killed_redis_is_back_at_the_same_address(stack: RunningStack) -> None:
    old = stack.kill("valkey")
    stack.wait_restarted("valkey", old_pid=old)
    with Redis.from_url(stack["redis_url"]) as client:
        wait_until(lambda: _pings(client), within_s=10)


def test_the_coin_and_the_token_are_worth_something_in_each_currency(stack: RunningStack) -> None:
    wait_until(
        lambda: stack.ctrip("rates").returncode == 0, within_s=30, every_s=0.5, what=lambda: stack.ctrip("rates").stderr
    )
    quoted = json.loads(stack.ctrip("rates", "--json").stdout)
    assert {(each["token"], each["currency"]): each["rate"] for each in quoted} == {
        ("ETH", "EUR"): "2990",
        ("ETH", "USD"): "3250",
        ("USDC", "EUR"): "0.92",
        ("USDC", "USD"): "1",
    }


def test_a_second_start_on_the_same_folder_is_refused_in_words(stack: RunningStack) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "ctrip.local"],
        cwd=ROOT,
        env={**os.environ, "DATA_DIR": str(stack.folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert "another stack is running on" in second.stdout
    assert "Traceback" not in second.stdout + second.stderr
    assert set(stack["pids"]) == MASTERS


def test_after_a_kill_of_the_supervisor_nothing_runs_and_the_next_start_has_the_data(stack: RunningStack) -> None:
    wait_until(lambda: _is_readable(stack), within_s=20, what="the chain has a start")
    payment = create(stack)
    key, block = stack["api_key"], stack.chain().block_number()
    stack.kill_supervisor()
    stack.start()
    stack.wait_ready()
    assert stack["api_key"] == key
    assert stack.chain().block_number() >= block - 2
    assert find(stack, payment["id"])["address"] == payment["address"]


def test_without_npm_the_demo_runs_on_py_evm_and_says_what_it_lacks(tmp_path: Path) -> None:
    stack = RunningStack(tmp_path / "data", "--demo", NO_NPM="1")
    stack.start()
    try:
        assert stack.supervisor.wait(150) == 0, stack.log.read_text()[-4000:]
    finally:
        stack.stop()
    story = stack.log.read_text()
    assert "in memory only" in story
    assert "no reorgs" in story
    for step in ("created", "detected", "confirmed", "settled"):
        assert f"webhook payment.{step}" in story


def _is_readable(stack: RunningStack) -> bool:
    key = {"Authorization": f"Bearer {stack['api_key']}"}
    answer = requests.get(stack["api"] + "/api/v1/chains", headers=key, timeout=5)
    chains = answer.json().get("data", [])
    return bool(chains) and chains[0].get("read_block") is not None


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


def _pings(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False
