"""`ocrft compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ocr_finetune_trainer.evaluation.comparison import Comparison

SHOWN = 20


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of evaluated runs.", metavar="RUN…")],
    html: Annotated[Path | None, typer.Option(help="Also write a page with the pictures they disagree on.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compares runs: settings, data, figures, speed, size, and where they disagree on the same test set."""
    from ocr_finetune_trainer.cli.output import out, print_json
    from ocr_finetune_trainer.evaluation.comparison import Comparison
    from ocr_finetune_trainer.evaluation.files import write_text

    comparison = Comparison.of(runs)
    if html is not None:
        from ocr_finetune_trainer.evaluation.report.comparison import comparison_report

        write_text(html, comparison_report(comparison))
    if json:
        print_json(comparison.as_dict())
        return
    _print(comparison)
    if html is not None:
        out.print(f"\nwritten: {html}", markup=False)


def _print(comparison: Comparison) -> None:
    from rich.table import Table

    from ocr_finetune_trainer.cli.output import out
    from ocr_finetune_trainer.evaluation.report.comparison import difference_lines, shown

    for title, rows in (
        ("what they reach", comparison.table("figures")),
        ("settings that differ", comparison.settings),
        ("data", comparison.table("data")),
    ):
        table = Table(title=title, title_justify="left")
        table.add_column("")
        for run in comparison.runs:
            table.add_column(run.label, overflow="fold")
        for name, row in rows.items():
            table.add_row(name, *(shown(row[run.label]) for run in comparison.runs))
        out.print(table)
    for line in difference_lines(comparison):
        out.print(line, markup=False)
    if not comparison.same_set:
        out.print("They were measured on different samples: the figures are not comparable one by one.")
        return
    found = comparison.disagreements
    out.print(f"\nThey disagree on {len(found)} samples" + (f", the first {SHOWN}:" if len(found) > SHOWN else ":"))
    for item in found[:SHOWN]:
        answers = "  ".join(f"{name}: {answer!r}" for name, answer in item.answers.items())
        out.print(f"  {item.origin or item.index}  {item.label!r}  {answers}", markup=False)
