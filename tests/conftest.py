"""What pytest says at the end: why tests were skipped, in ten lines instead of a thousand."""

import re
from collections import Counter

import pytest

_LINES = 10


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
