"""A real Prometheus on the shipped rules, scraping what a test names, with the clock of a test: every second."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml

from ctrip.local.children import free_port
from tests.ops.tools import find
from tests.stack import PORTS, ROOT
from tests.waiting import wait_until

SHIPPED = ROOT / "ops" / "prometheus"
_NAMED = re.compile(r'((?:[a-z_]+:)?ctrip_[a-z0-9_]+(?::[a-z0-9_]+)?|\bup\b)(\{(?:[^}"]|"[^"]*")*\})?')


class Prometheus:
    """The HTTP API of one."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query. Fails where Prometheus does not understand it."""
        answer = requests.post(f"{self.url}/api/v1/query", data={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", (expression, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def firing(self) -> dict[str, list[dict[str, str]]]:
        """Return the labels of the alerts that fire, by name."""
        answer = requests.get(f"{self.url}/api/v1/alerts", timeout=10).json()
        found: dict[str, list[dict[str, str]]] = {}
        for alert in answer["data"]["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
        return found

    def series(self) -> list[dict[str, str]]:
        """Return the labels of every series of ours."""
        match = {"match[]": '{__name__=~"ctrip_.*"}'}
        found: list[dict[str, str]] = requests.get(f"{self.url}/api/v1/series", params=match, timeout=10).json()["data"]
        return found

    def is_ready(self) -> bool:
        """Whether it answers, and every target did too."""
        try:
            return bool(self.query("up")) and all(float(each["value"][1]) == 1 for each in self.query("up"))
        except requests.RequestException:
            return False


def selectors(expression: str) -> set[str]:
    """Find what an expression selects: names of metrics with their matchers."""
    return {name + matchers for name, matchers in _NAMED.findall(expression)}


@contextmanager
def scraping(folder: Path, targets: Mapping[str, Sequence[str]], *, alerts_wait: bool = True) -> Iterator[Prometheus]:
    """Run one in `folder` until the block ends. `targets` are host:port by job.

    Only what is about time and place differs from what is shipped: intervals, targets and, unless `alerts_wait`, the
    `for` of alerts.
    """
    url = _configure(folder, targets, alerts_wait=alerts_wait)
    log = folder / "prometheus.log"
    command = [
        str(find("prometheus")),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--log.level=warn",
    ]
    with log.open("ab") as output:
        child = subprocess.Popen(command, cwd=folder, env={"PATH": os.defpath}, stdout=output, stderr=output)
    try:
        prometheus = Prometheus(url)
        wait_until(prometheus.is_ready, within_s=30, what=f"prometheus has scraped all targets, see {log}")
        yield prometheus
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)


def _configure(folder: Path, targets: Mapping[str, Sequence[str]], *, alerts_wait: bool) -> str:
    url = f"http://127.0.0.1:{free_port(26090 + PORTS)}"
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == {*targets, "prometheus"}
    jobs["prometheus"]["static_configs"] = [{"targets": [url.removeprefix("http://")]}]
    for name, places in targets.items():
        del jobs[name]["dns_sd_configs"]
        jobs[name]["static_configs"] = [{"targets": list(places)}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copytree(SHIPPED / "rules", folder / "rules")
    if not alerts_wait:
        rules = folder / "rules" / "alerts.yml"
        rules.write_text(re.sub(r"^ +for: \w+\n", "", rules.read_text(), flags=re.MULTILINE))
    return url
