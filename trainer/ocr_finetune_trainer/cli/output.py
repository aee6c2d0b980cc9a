"""How `ocrft` talks: text for people on a terminal, JSON for programs, problems on standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

from ocr_finetune_api.exit_codes import OCRFineTuneError

PROBLEMS_SHOWN = 40

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(document: Any) -> None:
    """Writes a JSON document to standard output."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2, default=str) + "\n")


def print_problems(problems: tuple[str, ...] | list[str], *, hint: str = "") -> None:
    """Writes problems, a line each, and what to do about them."""
    for problem in problems[:PROBLEMS_SHOWN]:
        err.print("[bold red]error:[/] ", end="")
        err.print(problem, markup=False)
    if len(problems) > PROBLEMS_SHOWN:
        err.print(f"… and {len(problems) - PROBLEMS_SHOWN} more; --json lists all")
    if hint:
        err.print("[bold]what to do:[/] ", end="")
        err.print(hint, markup=False)


def print_error(error: OCRFineTuneError, *, as_json: bool) -> None:
    """Writes an error the way the command was asked to talk."""
    if as_json:
        document = {"problems": list(error.problems), "hint": error.hint, "exitCode": int(error.exit_code)}
        print_json({"error": document})
    else:
        print_problems(error.problems, hint=error.hint)
