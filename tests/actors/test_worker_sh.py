"""worker.sh as an operator runs it: who gets which keys, who serves the numbers, and that nothing stays behind."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis

from actors import GROUPS, QUEUES, SECRETS
from actors.broker import NAMESPACE
from actors.queues import Queues
from ctrip.context import Context
from ctrip.local.children import free_port
from tests.actors.workers import OWN_PORTS, Master, environment_of, running
from tests.waiting import wait_until

pytestmark = pytest.mark.infra


class Script:
    """How to start worker.sh against the session's parts."""

    def __init__(self, environment: dict[str, str], redis: Redis, folder: Path) -> None:
        self.port = free_port(OWN_PORTS)
        self.environment = {**environment, "METRICS_PORT": str(self.port)}
        self.folder = folder
        self._queues = Queues(redis, namespace=NAMESPACE, heartbeat_timeout_ms=30_000)

    def start(self, *queues: str, **changes: str | None) -> Any:
        whole: dict[str, str | None] = {**self.environment, **changes}
        given = {name: value for name, value in whole.items() if value is not None}
        return running("./worker.sh", *queues, environment=given, log=self.folder / "worker.log")

    def served(self) -> set[str]:
        """The queues that a live worker serves."""
        return {depth.queue for depth in self._queues.depths(QUEUES) if depth.workers}

    def page(self) -> str:
        return requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=5).text


@pytest.fixture
def script(ctx: Context, environment: dict[str, str], redis_client: Redis, tmp_path: Path) -> Script:
    return Script(environment, redis_client, tmp_path)


def masters(master: Master) -> dict[str, int]:
    """The pid of each queue's dramatiq master."""
    found: dict[str, int] = {}
    for pid, command in sorted(master.family().items()):
        if "--queues" in command:
            # The forks of a master have its command line; the master itself was there first.
            found.setdefault(command[command.index("--queues") + 1], pid)
    return found


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_four_queues_start_by_the_table_with_their_own_keys_and_stop_together(script: Script) -> None:
    mail = {"SMTP_URL": "smtp://127.0.0.1:1", "MAIL_FROM": "shop@example.com"}
    with script.start(**mail) as started:
        wait_until(lambda: script.served() == set(QUEUES), within_s=40, what=started.said)
        groups = {group.queue: group for group in GROUPS}
        for pid, command in started.family().items():
            if "--queues" not in command:
                continue
            group = groups[option(command, "--queues")]
            held = environment_of(pid)
            assert {name for name in SECRETS if name in held} == set(group.secrets), group.queue
            assert option(command, "--processes") == str(group.processes)
            assert option(command, "--threads") == str(group.threads) == held[f"{group.queue.upper()}_THREADS"]
            assert option(command, "--worker-shutdown-timeout") == str(group.stop_within.seconds * 1000)
        assert "ctrip_build_info" in script.page()
        started.signal(signal.SIGINT)
        assert started.wait(40) == 0
        wait_until(lambda: started.family() == {}, within_s=2)
        assert "Traceback" not in started.said
    assert script.served() == set(), "they have signed out"


def test_one_queue_is_the_master_itself_of_the_size_that_was_asked_for_and_ends_with_a_sigterm(script: Script) -> None:
    with script.start("email", EMAIL_PROCESSES="2", EMAIL_THREADS="3", WORKER_STOP_SECONDS="7") as started:
        wait_until(lambda: started.said.count('"event": "worker_ready"') == 2, within_s=20, what=started.said)
        assert masters(started) == {"email": started.process.pid}
        command = started.family()[started.process.pid]
        told = [option(command, name) for name in ("--processes", "--threads", "--worker-shutdown-timeout")]
        assert told == ["2", "3", "7000"]
        started.signal(signal.SIGTERM)
        assert started.wait(40) == 0


def test_a_hang_up_starts_all_workers_anew_and_two_sigterms_are_one_stop(script: Script) -> None:
    with script.start("webhook", "email") as started:
        wait_until(lambda: started.said.count('"event": "worker_ready"') == 2, within_s=30, what=started.said)
        before = masters(started)
        started.signal(signal.SIGHUP)
        wait_until(lambda: started.said.count('"event": "worker_ready"') == 4, within_s=30, what=started.said)
        assert started.said.count('"event": "worker_stopped"') == 2
        assert masters(started) == before
        started.signal(signal.SIGTERM)
        started.signal(signal.SIGTERM)
        assert started.wait(40) == 0
        assert "Traceback" not in started.said
        assert started.said.count('"event": "worker_stopped"') == 4


def test_a_sigterm_to_every_process_is_a_stop_like_any_other(script: Script) -> None:
    """As systemd sends it unless it is told KillMode=mixed."""
    with script.start("webhook", "email") as started:
        wait_until(lambda: started.said.count('"event": "worker_ready"') == 2, within_s=30, what=started.said)
        for pid in started.family():
            os.kill(pid, signal.SIGTERM)
        assert started.wait(40) == 0
        assert started.said.count('"event": "worker_stopped"') == 2


def test_a_worker_that_dies_takes_its_master_and_the_others_along_and_the_script_fails(script: Script) -> None:
    with script.start("webhook", "email") as started:
        wait_until(lambda: started.said.count('"event": "worker_ready"') == 2, within_s=30, what=started.said)
        master = masters(started)["email"]
        (fork,) = (
            pid
            for pid, command in started.family().items()
            if pid != master and "--queues" in command and option(command, "--queues") == "email"
        )
        os.kill(fork, signal.SIGKILL)
        assert started.wait(40) not in (0, -signal.SIGKILL)
        wait_until(lambda: started.family() == {}, within_s=5)
        assert started.said.count('"event": "worker_stopped"') == 1, "webhook's workers finished"


def test_when_a_master_is_killed_the_others_stop_and_the_script_fails(script: Script) -> None:
    with script.start("webhook", "email") as started:
        wait_until(lambda: script.served() == {"webhook", "email"}, within_s=30, what=started.said)
        os.kill(masters(started)["webhook"], signal.SIGKILL)
        assert started.wait(40) not in (0, -signal.SIGKILL)
        wait_until(lambda: started.family() == {}, within_s=5)


def test_when_the_script_is_killed_nothing_stays_behind(script: Script) -> None:
    with script.start("webhook", "email") as started:
        wait_until(lambda: script.served() == {"webhook", "email"}, within_s=30, what=started.said)
        started.signal(signal.SIGKILL)
        wait_until(lambda: started.family() == {}, within_s=10, what=str(started.family()))


def test_a_misconfigured_worker_says_so_once_and_takes_the_others_along(script: Script) -> None:
    with script.start("email", "sweeper", WALLET_MNEMONIC=None) as started:
        assert started.wait(30) == 78
        wait_until(lambda: started.family() == {}, within_s=5)
        assert started.said.count("WALLET_MNEMONIC") == 1
        assert "Traceback" not in started.said
        for secret in ("GAS_KEY", "SECRETS_KEY", "WALLET_XPUB"):
            assert script.environment[secret] not in started.said


def test_a_queue_that_there_is_not_is_refused(script: Script) -> None:
    with script.start("listner") as started:
        assert started.wait(5) == 64
        assert "no queue 'listner'; there are: listener sweeper webhook email" in started.said


def test_masters_that_share_a_folder_share_the_page_and_do_not_wipe_it(script: Script) -> None:
    folder = script.folder / "counters"
    folder.mkdir()
    (folder / "of-others").touch()
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    with script.start("email", **shared) as first:
        wait_until(lambda: script.served() == {"email"}, within_s=20, what=first.said)
        with script.start("email", **shared) as second:
            wait_until(lambda: len(list(folder.glob("counter_*.db"))) >= 2, within_s=20, what=second.said)
            assert (folder / "of-others").exists()
            first.signal(signal.SIGKILL)
            wait_until(lambda: first.family() == {}, within_s=5)
            wait_until(lambda: _answers(script), within_s=5, what="the second takes the page over")


def _answers(script: Script) -> bool:
    try:
        return "ctrip_build_info" in script.page()
    except requests.ConnectionError:
        return False
