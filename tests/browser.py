"""Headless Chromium without a network, for tests of pages."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

NEEDED = "GROKINTERP_NEEDS_BROWSER"  # set where a missing browser is an error, as in CI


def binaries() -> tuple[str, str]:
    """Chromium and its driver; the test is skipped where there are none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium and driver:
        return chromium, driver
    if os.environ.get(NEEDED):
        pytest.fail("chromium and chromedriver are not installed")
    pytest.skip("needs chromium and chromedriver")


class Page:
    """One page in a browser of its own, its requests and what it said on the console."""

    def __init__(self, width: int, height: int, downloads: Path) -> None:
        chromium, driver = binaries()
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(service=Service(driver), options=options)
        self.driver.set_script_timeout(120)
        self.size(width, height)
        self.command("Network.enable")
        offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.command("Network.emulateNetworkConditions", offline=True, **offline)
        self.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        self.requests: list[str] = []
        self.said: list[str] = []

    def command(self, name: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)

    def size(self, width: int, height: int) -> None:
        """The size of the viewport, which a window cannot have below 500 pixels."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def open(self, path: Path, fragment: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(path.as_uri() + fragment)

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def wait(self, code: str, *arguments: Any, seconds: float = 60) -> Any:
        """What this JavaScript returns as soon as it is true."""
        end = time.monotonic() + seconds
        while not (found := self.js(code, *arguments)):
            assert time.monotonic() < end, f"not within {seconds} s: {code}"
            time.sleep(0.05)
        return found

    def settled(self) -> None:
        """Until every panel shows what it should."""
        self.wait('return document.body.getAttribute("aria-busy") === "false"')

    def logs(self) -> None:
        """Bring `requests` (other than of files and data) and `said` up to date."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if not url.startswith(("file:", "data:", "about:")):
                    self.requests.append(url)
        self.said += [entry["message"] for entry in self.driver.get_log("browser")]

    def picture(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))

    def close(self) -> None:
        self.driver.quit()


def until(found: Callable[[], Any], seconds: float = 20) -> Any:
    """What this returns as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)
    return value
