"""The Grafana files against Grafana's own schema, and what every panel must say of itself."""

import json
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.runtime import panelcfg_config
from grafana_foundation_sdk.models import units

from tests.ops.grafana_schema import faults_of
from tests.stack import ROOT

GRAFANA = ROOT / "ops" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
UNITS = {value for value in vars(units).values() if isinstance(value, str)}


def read(file: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dashboard_is_what_grafanas_schema_says(file) -> None:
    assert faults_of(read(file)) == []
    assert all(panelcfg_config(panel["type"]) is not None for panel in panels(read(file))), "each panel's own types"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schemaVersion",), "41"),
        (("graphTooltip",), 7),
        (("refreshes",), "10s"),
        (("panels", 1, "gridPos", "w"), "wide"),
        (("panels", 1, "titel"), "a typing error"),
        (("panels", 1, "targets", 0, "expression"), "up"),
        (("panels", 1, "targets", 0, "format"), "matrix"),
        (("panels", 1, "options", "colorMode"), "colourful"),
        (("panels", 8, "fieldConfig", "defaults", "custom", "drawStyle"), "curve"),
        (("panels", 8, "fieldConfig", "defaults", "thresholds", "steps", 0, "value"), "much"),
    ],
    ids=lambda each: ".".join(map(str, each)) if isinstance(each, tuple) else None,
)
def test_a_fault_in_a_dashboard_is_found(path: tuple[str | int, ...], value: object) -> None:
    dashboard = read(GRAFANA / "dashboards" / "queue-health.json")
    place: Any = dashboard
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert len(faults_of(dashboard)) >= 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_panel_says_what_it_shows_in_which_unit_and_overlaps_no_other(file) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels(read(file)):
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    titles = [panel["title"] for panel in panels(read(file))]
    assert len(titles) == len(set(titles)), "a title names its panel"


def test_the_dashboards_ask_the_data_source_that_is_provisioned() -> None:
    provisioned = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    (source,) = provisioned["datasources"]
    asked = {
        (target["datasource"]["type"], target["datasource"]["uid"])
        for file in FILES
        for panel in panels(read(file))
        for target in panel["targets"]
    }
    assert asked == {(source["type"], source["uid"])}
    assert len({read(file)["uid"] for file in FILES}) == len(FILES) == 3
