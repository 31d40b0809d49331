"""Scrape configuration, rules and alerts: valid, each alert fires in a case of its own, none where all is well."""

import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.ops.tools import find
from tests.stack import ROOT

pytestmark = pytest.mark.infra
FOLDER = ROOT / "ops" / "prometheus"
CASES = sorted((FOLDER / "tests").glob("*.yml"))
RULES = [
    rule for group in yaml.safe_load((FOLDER / "rules" / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
NAMES = {rule["alert"] for rule in RULES}


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        [str(find("promtool")), *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cases() -> list[dict[str, Any]]:
    return [case for file in CASES for case in yaml.safe_load(file.read_text())["tests"]]


def fired(case: dict[str, Any]) -> set[str]:
    return {each["alertname"] for each in case.get("alert_rule_test", ()) if each["exp_alerts"]}


def test_the_configuration_and_the_rules_are_valid() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", *(str(file) for file in (FOLDER / "rules").glob("*.yml")))


def test_every_case_of_the_rules_holds() -> None:
    promtool("test", "rules", *(str(file) for file in CASES))


def test_each_alert_fires_in_a_case_and_stays_quiet_in_the_quiet_one() -> None:
    assert set.union(*(fired(case) for case in cases())) == NAMES
    (quiet,) = [case for case in cases() if not fired(case) and "alert_rule_test" in case]
    assert {each["alertname"] for each in quiet["alert_rule_test"]} == NAMES


def test_each_alert_says_how_bad_it_is_and_leads_to_its_runbook() -> None:
    headings = set(re.findall(r"^### (\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule["alert"]
        notes = rule["annotations"]
        assert notes["summary"] and notes["description"].endswith("."), rule["alert"]
        assert notes["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
    assert headings == NAMES, "a runbook for each alert, and none for an alert that is no more"
