"""The page in a real browser, where one is at hand: a linked state opens headless."""

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from javascript import call

from rightbatch.reporting import html, whatif

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=8000",
)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no browser")
def test_a_link_opens_the_state_it_names(plan_document, tmp_path):
    report = html.write_html(plan_document, tmp_path / "report.html")
    address = f"{report.as_uri()}#dark&P=4&S_min=50&gamma=1e-06"
    page = opened(address, tmp_path)
    said = re.search(r'<output id="what-if-answer"[^>]*>(.*?)</output>', page)
    assert said is not None
    model = whatif.what_if(plan_document)
    assert model is not None
    state = {**call("laws.startOf", model["knobs"]), "P": 4, "S_min": 50}
    problem = call("laws.problemOf", model, {**state, "gamma": 1e-6})
    entry = call("laws.plan", problem, 4)
    assert f"On 4 replicas train at batch {entry['batch_size']}" in said[1]
    assert call("drawing.seconds", entry["seconds"]) in said[1]
    assert 'data-theme="dark"' in page


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no browser")
def test_an_axis_from_right_to_left_keeps_the_numbers_it_has_room_for(tmp_path):
    scale = {"value": 50, "low": 40, "high": 60, "level": 0.95}
    known = {"status": "resolved", "simple_noise_scale": scale}
    losses = (2.3, 1.1, 0.4, 0.15)
    rows = [{"step": i, "loss": loss, **known} for i, loss in enumerate(losses)]
    document = {"schema": 1, "command": "noise", "measurements": rows}
    report = html.write_html(document, tmp_path / "report.html")
    page = opened(report.as_uri(), tmp_path)
    ticks = re.findall(r'<g class="xtick"><text[^>]*>([^<]*)</text>', page)
    assert {"0.2", "1", "2"} <= set(ticks)


def opened(address: str, folder: Path) -> str:
    """Return a page as it stands once its scripts have run."""
    done = subprocess.run(
        [
            str(BROWSER),
            *FLAGS,
            f"--user-data-dir={folder / 'browser'}",
            "--dump-dom",
            address,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return unescape(done.stdout)
