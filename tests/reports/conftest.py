"""One browser for the tests of a file."""

import pytest

from report_samples import browser


@pytest.fixture(scope="module")
def chromium():
    """A running Chromium or Chrome; the tests that need one are skipped where there is none."""
    if browser() is None:
        pytest.skip("no Chromium or Chrome is installed on PATH")
    with pytest.importorskip("playwright.sync_api").sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        yield running
        running.close()
