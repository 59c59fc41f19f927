"""README.md says what is true."""

from pathlib import Path

HOUSE = Path(__file__).parent.parent.parent


def test_ci_runs_the_very_test_command_of_the_readme() -> None:
    *_, command = (HOUSE / ".ci" / "run").read_text().strip().splitlines()
    assert f"```sh\n{command}\n```" in (HOUSE / "README.md").read_text()
