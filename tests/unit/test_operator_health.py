"""The probes prove what they claim; the labels of the metrics stay bounded; logs say what they are about."""

from __future__ import annotations

import asyncio
import json
import logging

import aiohttp
import pytest

from ocr_finetune_operator import health, logs
from ocr_finetune_operator.metrics import Metrics
from ports import reserved


async def _ask(port: int, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


def test_a_leader_whose_workers_take_no_heartbeat_is_not_alive() -> None:
    now = [0.0]

    async def story(port: int) -> list[tuple[int, str]]:
        found = health.Health(clock=lambda: now[0])
        server = await health.serve(found, Metrics(), port=port, refresh=lambda: None)
        try:
            answers = [await _ask(port, "/readyz")]
            now[0] = 1000.0
            answers.append(await _ask(port, "/healthz"))  # a replica that waits has nothing to do
            found.lead()
            found.ready = True
            now[0] = 1031.0
            answers += [await _ask(port, "/healthz"), await _ask(port, "/readyz")]
            found.beat()
            answers.append(await _ask(port, "/healthz"))
        finally:
            await server.cleanup()
        return answers

    with reserved() as port:
        codes = [code for code, _ in asyncio.run(story(port))]
    assert codes == [503, 200, 503, 200, 200]


def test_each_replica_has_one_series_a_run_up_to_a_limit() -> None:
    metrics = Metrics(max_runs=2)
    for number in range(5):
        metrics.show(("team", f"run-{number}"), stage="train", percent=50.0, metric="accuracy", best=0.9)
    text = metrics.text().decode()
    assert text.count("ocrfinetune_run_progress_ratio{") == text.count("ocrfinetune_run_best_metric{") == 2
    assert "ocrfinetune_runs_without_series 3.0" in text
    # A run that ends makes room; one that goes on to another stage does not appear twice.
    metrics.show(("team", "run-0"), stage="evaluate", percent=10.0, metric="accuracy", best=0.9)
    metrics.hide(("team", "run-1"))
    metrics.hide(("team", "run-2"))
    metrics.show(("team", "run-3"), stage="train", percent=50.0, metric="", best=None)
    lines = [line for line in metrics.text().decode().splitlines() if line.startswith("ocrfinetune_run_progress")]
    assert lines == [
        'ocrfinetune_run_progress_ratio{namespace="team",run="run-0",stage="evaluate"} 0.1',
        'ocrfinetune_run_progress_ratio{namespace="team",run="run-3",stage="train"} 0.5',
    ]


@pytest.mark.parametrize("form", ["json", "text"])
def test_each_line_of_the_log_says_what_it_is_about(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    level = root.level
    try:
        logs.configure(form=form, level="info")
        about = {"run": "team/plates", "stage": "train", "attempt": 2}
        logging.getLogger("ocr_finetune_operator.x").warning("two\nlines \x1b[31m", extra=about)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    said = capsys.readouterr().err
    if form == "json":
        (line,) = said.splitlines()
        found = json.loads(line)
        assert {key: found[key] for key in about} == about
        assert (found["level"], found["message"]) == ("warning", "two\nlines \x1b[31m")
    else:
        assert "WARNING [team/plates train 2] two" in said
