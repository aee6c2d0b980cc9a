"""Builds the Grafana dashboards and writes them as JSON into the chart: ``python charts/generate_dashboards.py``.

Two of them: the fleet (all runs, for administrators) and one run (for who trains). ``--check`` says whether the files
are current, without writing them.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableRefresh,
    VariableSort,
)

FOLDER = Path(__file__).parent / "ocr-finetune-operator" / "files" / "dashboards"
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_WIDTH = 24
_RUN = 'namespace="$namespace", run="$run"'
_PARTS = "ocrft_train_part_seconds"
_BUSY = '{part=~"data|compute|agree"}'


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        title: Its title.
        queries: Legend and query of each series; a legend may hold labels as ``{{label}}``.
        what: What it tells, shown as help.
        unit: Grafana's unit.
        width: In 24ths of the page.
        number: Whether it shows one number instead of a curve.
        minimum: Least value of the axis.
        maximum: Largest value of the axis.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    what: str = ""
    unit: str = "short"
    width: int = 8
    number: bool = False
    minimum: float | None = None
    maximum: float | None = None


def _quantile(quantile: float, histogram: str) -> str:
    return f"histogram_quantile({quantile}, sum by (le) (rate({histogram}_bucket[$__rate_interval])))"


FLEET: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Runs",
        (
            Panel(
                title="Training",
                queries=(("", 'sum(ocrfinetune_runs{phase="Training"})'),),
                number=True,
                width=4,
                what="Runs that train now.",
            ),
            Panel(
                title="Queued or pending",
                queries=(("", 'sum(ocrfinetune_runs{phase=~"Queued|Pending"})'),),
                number=True,
                width=4,
                what="Runs that wait for quota, or for something that is missing.",
            ),
            Panel(
                title="Failed",
                queries=(("", 'sum(ocrfinetune_runs{phase="Failed"})'),),
                number=True,
                width=4,
                what="Runs that ended Failed and are still there.",
            ),
            Panel(
                title="Devices in use",
                queries=(("", 'count(ocrft_train_step{stage="train"})'),),
                number=True,
                width=4,
                what="Training processes, one a device.",
            ),
            Panel(
                title="Samples a second",
                queries=(("", "sum(rate(ocrft_train_samples_total[$__rate_interval]))"),),
                number=True,
                width=4,
                what="Over all runs.",
            ),
            Panel(
                title="Operators that lead",
                queries=(("", "sum(ocrfinetune_leader)"),),
                number=True,
                width=4,
                what="Has to be 1.",
            ),
            Panel(
                title="Runs by phase",
                queries=(("{{phase}}", "sum by (phase) (ocrfinetune_runs)"),),
                width=12,
                minimum=0,
            ),
            Panel(
                title="Wait from creation to the first running pod",
                queries=(
                    ("half of the runs", _quantile(0.5, "ocrfinetune_first_pod_seconds")),
                    ("99 % of the runs", _quantile(0.99, "ocrfinetune_first_pod_seconds")),
                ),
                unit="s",
                width=12,
                minimum=0,
            ),
        ),
    ),
    (
        "Attempts",
        (
            Panel(
                title="Ended attempts by outcome",
                queries=(("{{outcome}}", "sum by (outcome) (increase(ocrfinetune_attempts_total[$__rate_interval]))"),),
                minimum=0,
            ),
            Panel(
                title="Failures by class",
                queries=(
                    (
                        "{{failure_class}}",
                        (
                            'sum by (failure_class) (increase(ocrfinetune_attempts_total{outcome!="Succeeded"}'
                            "[$__rate_interval])) > 0"
                        ),
                    ),
                ),
                what="Failed and disrupted attempts; the runbook failing-repeatedly says what each class points at.",
                minimum=0,
            ),
            Panel(
                title="Time of a stage, half of the runs",
                queries=(
                    (
                        "{{stage}}",
                        (
                            "histogram_quantile(0.5, sum by (le, stage) "
                            "(rate(ocrfinetune_stage_duration_seconds_bucket[1h])))"
                        ),
                    ),
                ),
                unit="s",
                minimum=0,
            ),
            Panel(
                title="Device memory by run",
                queries=(
                    (
                        "{{namespace}}/{{run}}",
                        'sum by (namespace, run) (ocrft_train_memory_bytes{kind="device"})',
                    ),
                ),
                unit="bytes",
                width=12,
                minimum=0,
            ),
            Panel(
                title="Part of the time spent waiting for data, by run",
                queries=(
                    (
                        "{{namespace}}/{{run}}",
                        (
                            f'sum by (namespace, run) (rate({_PARTS}_sum{{part="data"}}[$__rate_interval])) / '
                            f"sum by (namespace, run) (rate({_PARTS}_sum{_BUSY}[$__rate_interval]))"
                        ),
                    ),
                ),
                unit="percentunit",
                width=12,
                minimum=0,
                maximum=1,
            ),
        ),
    ),
    (
        "Operator",
        (
            Panel(
                title="Time of a look at a run",
                queries=(
                    ("half", _quantile(0.5, "ocrfinetune_reconcile_duration_seconds")),
                    ("99 %", _quantile(0.99, "ocrfinetune_reconcile_duration_seconds")),
                ),
                unit="s",
                minimum=0,
            ),
            Panel(
                title="Failed looks by reason",
                queries=(
                    ("{{reason}}", "sum by (reason) (rate(ocrfinetune_reconcile_errors_total[$__rate_interval]))"),
                ),
                unit="ops",
                minimum=0,
            ),
            Panel(
                title="Queue",
                queries=(
                    ("runs waiting", "sum(ocrfinetune_queue_depth)"),
                    ("seconds the oldest waits", "max(ocrfinetune_queue_age_seconds)"),
                ),
                minimum=0,
            ),
            Panel(
                title="API requests",
                queries=(
                    (
                        "{{verb}} {{code}}",
                        "sum by (verb, code) (rate(ocrfinetune_api_requests_total[$__rate_interval]))",
                    ),
                ),
                unit="reqps",
                minimum=0,
            ),
            Panel(
                title="Memory",
                queries=(("{{pod}}", "process_resident_memory_bytes and on (pod) ocrfinetune_leader"),),
                unit="bytes",
                minimum=0,
            ),
            Panel(
                title="Processor",
                queries=(
                    ("{{pod}}", "rate(process_cpu_seconds_total[$__rate_interval]) and on (pod) ocrfinetune_leader"),
                ),
                unit="percentunit",
                minimum=0,
            ),
        ),
    ),
)

RUN: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "How it stands",
        (
            Panel(
                title="Progress of the stage",
                queries=(("{{stage}}", f"ocrfinetune_run_progress_ratio{{{_RUN}}}"),),
                unit="percentunit",
                number=True,
                width=6,
            ),
            Panel(
                title="Best metric",
                queries=(("{{metric}}", f"ocrfinetune_run_best_metric{{{_RUN}}}"),),
                unit="percentunit",
                number=True,
                width=6,
            ),
            Panel(
                title="Samples a second",
                queries=(("", f"sum(rate(ocrft_train_samples_total{{{_RUN}}}[$__rate_interval]))"),),
                number=True,
                width=6,
            ),
            Panel(
                title="Epoch",
                queries=(("", f"max(ocrft_train_epoch{{{_RUN}}})"),),
                number=True,
                width=6,
            ),
        ),
    ),
    (
        "Learning",
        (
            Panel(title="Loss", queries=(("{{term}}", f'ocrft_train_loss{{{_RUN}, rank="0"}}'),), width=12),
            Panel(
                title="Validation",
                queries=(
                    # How many samples were measured would dwarf what was measured.
                    ("{{metric}}", f'ocrft_validation{{{_RUN}, rank="0", metric!="samples"}}'),
                    ("best", f'ocrft_train_best_metric{{{_RUN}, rank="0"}}'),
                ),
                unit="percentunit",
                width=12,
                minimum=0,
            ),
            Panel(title="Learning rate", queries=(("rate", f'ocrft_train_learning_rate{{{_RUN}, rank="0"}}'),)),
            Panel(
                title="Gradient norm",
                queries=(
                    ("norm", f'ocrft_train_gradient_norm{{{_RUN}, rank="0"}}'),
                    ("loss scale", f'ocrft_train_loss_scale{{{_RUN}, rank="0"}}'),
                ),
                minimum=0,
            ),
            Panel(
                title="Loss by source of the data",
                queries=(("{{source}}", f'ocrft_train_source_loss{{{_RUN}, rank="0"}}'),),
                minimum=0,
            ),
        ),
    ),
    (
        "Ranks side by side",
        (
            Panel(
                title="Samples a second, by rank",
                queries=(
                    (
                        "rank {{rank}}",
                        f"sum by (rank) (rate(ocrft_train_samples_total{{{_RUN}}}[$__rate_interval]))",
                    ),
                ),
                minimum=0,
            ),
            Panel(
                title="Part of the time spent waiting for data",
                queries=(
                    (
                        "rank {{rank}}",
                        (
                            f'sum by (rank) (rate({_PARTS}_sum{{{_RUN}, part="data"}}[$__rate_interval])) / '
                            f'sum by (rank) (rate({_PARTS}_sum{{{_RUN}, part=~"data|compute|agree"}}[$__rate_interval]))'
                        ),
                    ),
                ),
                unit="percentunit",
                minimum=0,
                maximum=1,
            ),
            Panel(
                title="Time a step waits for the other ranks",
                queries=(
                    (
                        "rank {{rank}}",
                        (
                            f'sum by (rank) (rate({_PARTS}_sum{{{_RUN}, part="agree"}}[$__rate_interval])) / '
                            f'sum by (rank) (rate({_PARTS}_count{{{_RUN}, part="agree"}}[$__rate_interval]))'
                        ),
                    ),
                ),
                what="The rank that waits least is the one that the others wait for.",
                unit="s",
                minimum=0,
            ),
            Panel(
                title="Memory",
                queries=(("rank {{rank}} {{kind}}", f"ocrft_train_memory_bytes{{{_RUN}}}"),),
                unit="bytes",
                minimum=0,
            ),
            Panel(
                title="Time by part",
                queries=(("{{part}}", f"sum by (part) (rate({_PARTS}_sum{{{_RUN}}}[$__rate_interval]))"),),
                what="Seconds a second, over all ranks.",
                minimum=0,
            ),
            Panel(
                title="Step, and step of the newest checkpoint",
                queries=(
                    ("step", f"max(ocrft_train_step{{{_RUN}}})"),
                    # Rank 0 writes the checkpoints.
                    ("checkpoint", f'max(ocrft_train_checkpoint_step{{{_RUN}, rank="0"}})'),
                ),
                what="What lies between them is repeated if a pod is lost now.",
                minimum=0,
            ),
            Panel(
                title="Steps whose gradients were no numbers",
                queries=(("rank {{rank}}", f"increase(ocrft_train_unusable_steps_total{{{_RUN}}}[$__rate_interval])"),),
                minimum=0,
            ),
        ),
    ),
)


def fleet() -> str:
    """Returns the dashboard of all runs."""
    return _dashboard("OCRFineTune / Fleet", uid="ocrft-fleet", rows=FLEET, variables=[])


def run() -> str:
    """Returns the dashboard of one run."""
    runs = "ocrfinetune_run_progress_ratio"
    variables = [
        _variable("namespace", f"label_values({runs}, namespace)"),
        _variable("run", f'label_values({runs}{{namespace="$namespace"}}, run)'),
    ]
    return _dashboard("OCRFineTune / Run", uid="ocrft-run", rows=RUN, variables=variables)


def _variable(name: str, query: str) -> builder.QueryVariable:
    return (
        builder.QueryVariable(name)
        .query(query)
        .datasource(_SOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def _dashboard(
    title: str, *, uid: str, rows: tuple[tuple[str, tuple[Panel, ...]], ...], variables: list[builder.QueryVariable]
) -> str:
    made = (
        builder.Dashboard(title)
        .uid(uid)
        .tags(["ocr-finetune"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(builder.DatasourceVariable("datasource").type("prometheus"))
    )
    for variable in variables:
        made = made.with_variable(variable)
    numbers = itertools.count(1)
    for name, panels in rows:
        made = made.with_row(builder.Row(name).id(next(numbers)))
        for panel in panels:
            made = made.with_panel(_panel(panel).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    made: stat.Panel | timeseries.Panel
    if panel.number:
        last = common.ReduceDataOptions().calcs(["lastNotNull"])
        made = stat.Panel().graph_mode(BigValueGraphMode.AREA).reduce_options(last).height(4)
    else:
        legend = (
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        made = timeseries.Panel().legend(legend).fill_opacity(8).height(8)
        if panel.minimum is not None:
            made = made.axis_soft_min(panel.minimum)
        if panel.maximum is not None:
            made = made.axis_soft_max(panel.maximum)
    made = made.title(panel.title).datasource(_SOURCE).unit(panel.unit).span(min(panel.width, _WIDTH))
    if panel.what:
        made = made.description(panel.what)
    for number, (legend_format, query) in enumerate(panel.queries):
        target = (
            prometheus.Dataquery().expr(query).legend_format(legend_format or "__auto").ref_id(chr(ord("A") + number))
        )
        # One number is the one of now: what has ended is not shown beside what goes on.
        made = made.with_target(target.instant() if panel.number else target)
    return made


def main(arguments: list[str]) -> int:
    """Writes or checks the files."""
    outdated = 0
    for name, text in (("fleet", fleet()), ("run", run())):
        file = FOLDER / f"{name}.json"
        if "--check" in arguments:
            outdated |= int(not file.exists() or file.read_text(encoding="utf-8") != text)
        else:
            file.write_text(text, encoding="utf-8")
    return outdated


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
