"""README.md says what is true."""

import re
from pathlib import Path

HOUSE = Path(__file__).parent.parent.parent


def test_ci_runs_the_very_test_command_of_the_readme() -> None:
    *_, command = (HOUSE / ".ci" / "run").read_text().strip().splitlines()
    assert f"```sh\n{command}\n```" in (HOUSE / "README.md").read_text()


def test_every_link_within_the_readme_leads_to_a_heading() -> None:
    text = (HOUSE / "README.md").read_text()
    headings = re.findall(r"^#+ (.+)$", re.sub(r"(?ms)^ *```.*?^ *```$", "", text), re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(anchors) == len(set(anchors)), "two headings of one name"
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= set(anchors)
