"""Alerts and dashboards: valid, current, documented, and about series that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from charts import CHART, one, render
from monitoring import ALERTS, queries, rules, used
from prometheus_client import CollectorRegistry

from ocr_finetune_operator.metrics import Metrics
from ocr_finetune_trainer.telemetry.training_metrics import TrainingMetrics

_CASES = Path(__file__).parent / "alerts_test.yaml"
_RUNBOOKS = CHART.parents[1] / "docs" / "runbooks"
_needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="no promtool on the PATH; Debian: apt-get install prometheus"
)


def _promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@_needs_promtool
def test_every_alert_fires_on_what_it_is_for_and_only_then() -> None:
    _promtool("check", "rules", ALERTS)
    _promtool("test", "rules", _CASES)
    cases = {
        case["alertname"] for test in yaml.safe_load(_CASES.read_text())["tests"] for case in test["alert_rule_test"]
    }
    assert cases == {rule["alert"] for rule in rules()}


@_needs_promtool
def test_every_query_of_the_dashboards_is_valid(tmp_path: Path) -> None:
    groups = [
        {
            "name": name,
            "rules": [{"record": "query", "expr": re.sub(r"\$__rate_interval", "5m", query)}],
        }
        for name, query in queries().items()
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": groups}))
    _promtool("check", "rules", "--lint=none", file)


def test_every_alert_has_a_severity_a_summary_and_a_runbook_page() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]
        page = _RUNBOOKS / rule["annotations"]["runbook_url"].removeprefix("RUNBOOKS/")
        assert f"`{rule['alert']}`, severity {rule['labels']['severity']}" in page.read_text()
    assert len(rules()) == len(list(_RUNBOOKS.glob("*.md")))


def test_every_series_in_use_is_one_that_operator_or_trainer_have() -> None:
    trainer = CollectorRegistry()
    TrainingMetrics(trainer, rank=0)
    known = set()
    for family in [*Metrics().registry.collect(), *trainer.collect()]:
        known.add(family.name)
        known |= {
            f"{family.name}{suffix}"
            for suffix in {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [])
        }
    assert used() <= known


def test_the_dashboards_are_current() -> None:
    done = subprocess.run([sys.executable, CHART.parent / "generate_dashboards.py", "--check"], check=False)
    assert done.returncode == 0, "run make generate"


def test_the_rule_object_holds_the_alerts_with_the_address_of_the_runbooks() -> None:
    values = {"monitoring": {"prometheusRule": {"enabled": True, "runbookUrl": "https://docs.example/runbooks/"}}}
    spec = one(render(values), "PrometheusRule")["spec"]
    urls = [rule["annotations"]["runbook_url"] for group in spec["groups"] for rule in group["rules"]]
    assert urls[0] == "https://docs.example/runbooks/operator-down.md"
    assert "{{ $labels.namespace }}" in spec["groups"][1]["rules"][0]["annotations"]["summary"]


def test_dashboards_come_with_the_label_that_grafanas_sidecar_looks_for() -> None:
    objects = render({"monitoring": {"dashboards": {"enabled": True}}})
    board = one(objects, "ConfigMap", "-dashboard-run")
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert board["data"]["run.json"] == (CHART / "files" / "dashboards" / "run.json").read_text()
