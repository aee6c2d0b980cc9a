"""`ocrft models` as a person uses it, against a real HTTP server."""

from __future__ import annotations

import http.server
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ocr_finetune_api.exit_codes import ConfigurationError, DataError, InputMissingError
from ocr_finetune_api.model_table import OFFICIAL_SITE, TABLE
from ocr_finetune_trainer.cli.models import app
from ocr_finetune_trainer.models.download import download
from weights_site import serving

DETECTOR = "DB_mv3" if TABLE["DB_mv3"].weights_url else "PP-OCRv4_mobile_det"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    site = tmp_path / "site"
    file = site / TABLE[DETECTOR].weights_url.removeprefix(OFFICIAL_SITE).lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps({"x": np.ones(3)}))
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OCRFT_MODEL_MIRROR", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("OCRFT_MODEL_HOME", str(tmp_path / "home"))
    yield tmp_path
    server.shutdown()
    thread.join()
    server.server_close()


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_models_go_from_a_site_into_an_archive_and_out_of_it(environment: Path) -> None:
    listed = {row["name"]: row for row in json.loads(_run("list", "--json"))}
    assert listed.keys() == TABLE.keys()
    assert not listed[DETECTOR]["present"]
    assert json.loads(_run("pull", DETECTOR, "--json"))[DETECTOR].endswith(".pdparams")
    assert json.loads(_run("--json"))  # without a command it lists
    assert DETECTOR in _run("verify")
    archive = environment / "models.tar"
    assert str(archive) in _run("pack", str(archive), DETECTOR)
    elsewhere = str(environment / "elsewhere")
    _run("pull", "--from", str(archive), "--home", elsewhere)
    assert json.loads(_run("verify", "--json", "--home", elsewhere)) == {DETECTOR: []}
    next((environment / "elsewhere").rglob("*.pdparams")).write_bytes(b"x")
    with pytest.raises(DataError, match="wrong checksum"):
        _run("verify", "--home", elsewhere)


def test_the_list_is_for_people_too(environment: Path) -> None:
    shown = _run("list", "--kind", "recognition")
    assert "MobileNetV3_small_ctc" in shown
    assert "DB_mv3" not in shown
    assert "there are no weights" in _run("verify")


def test_a_name_is_needed_and_must_be_right(environment: Path) -> None:
    with pytest.raises(ConfigurationError, match="no model is named"):
        _run("pull")
    with pytest.raises(ConfigurationError, match="did you mean"):
        _run("pull", "PP-OCRv5_mobil_rec")


def test_listing_imports_nothing_heavy() -> None:
    heavy = ("paddle", "numpy", "cv2")
    code = f"import sys, ocr_finetune_trainer.cli.models; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


def test_a_slow_mirror_that_breaks_off_is_enough_and_one_with_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCRFT_MODEL_HOME", str(tmp_path / "home"))
    address = TABLE[DETECTOR].weights_url.removeprefix(OFFICIAL_SITE)
    with serving() as site:
        monkeypatch.setenv("OCRFT_MODEL_MIRROR", site.url)
        site.files = {address: pickle.dumps({"x": np.ones(3000)})}
        site.slow, site.breaks_after = 0.01, 15_000
        file = Path(json.loads(_run("pull", DETECTOR, "--json"))[DETECTOR])
        assert file.read_bytes() == site.files[address]
        assert [asked for _, asked in site.requests] == ["", "bytes=15000-"]
        assert json.loads(_run("verify", "--json")) == {DETECTOR: []}
        file.unlink()
        site.files[address] = pickle.dumps({"x": np.zeros(3000)})
        site.slow, site.breaks_after, site.etag = 0.0, 0, '"two"'
        with pytest.raises(DataError, match="wrong checksum"):
            _run("pull", DETECTOR)
        assert not file.exists()
    with pytest.raises(InputMissingError, match="can't be reached"):
        download(f"{site.url}{address}", tmp_path / "w", attempts=1)
