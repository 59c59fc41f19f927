"""STATE/metrics.prom: what Prometheus reads of it, and what the example alerts make of that."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

from scr_watchd.daemon.metrics import Family, Sample, Tally, families, write
from scr_watchd.daemon.outcome import Failed, Found, Outcome, Unchanged
from scr_watchd.daemon.report import Reporter
from scr_watchd.daemon.status import ProblemStatus, Status
from scr_watchd.daemon.systemd import Notifier
from scr_watchd.oci.catalog import Problem, Reference
from scr_watchd.oci.names import RepositoryName, Tag
from scr_watchd.publish.outcome import Changes, Deferred, Published, Rejected, Unconfirmed
from scr_watchd.publish.sight import Sight
from tests.daemons import daemon, free_port, public_directory, remove
from tests.http import ask
from tests.nginxes import nginx_with, require
from tests.private_mounts import mount, run_with_private_mounts, unmount
from tests.trees import image, write_image
from tests.waiting import until

CONFIG = Path(__file__).parent.parent.parent / "config"
ALERTS = CONFIG / "prometheus-alerts.yaml"
DASHBOARD = CONFIG / "grafana-dashboard.json"
APP: Reference = (RepositoryName("app"), Tag("1"))
NONE = Changes({}, {}, {})

Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Numbers:
    """Every sample by name and labels, as Prometheus' own client library understands them."""
    return {
        (sample.name.removeprefix("scr_watchd_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def numbers_of(path: Path) -> Numbers:
    return read(path.read_text())


def text_of(status: Status, tally: Tally | None = None, *, clock: float = 1000.5) -> str:
    return "".join(map(str, families(status, tally or Tally(began=900), clock=clock)))


def promtool(*arguments: object, stdin: str = "") -> str:
    """What promtool says; fails if it finds fault."""
    beside = Path(sys.executable).with_name("promtool")
    program = str(beside) if beside.exists() else require("promtool")
    result = subprocess.run(
        [program, *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture
def reporter(tmp_path: Path) -> Reporter:
    return Reporter(tmp_path / "status.json", tmp_path / "metrics.prom", Notifier({}), tmp_path, tmp_path)


# -- the text --------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_status_and_of_the_tally() -> None:
    tally = Tally(began=900)
    for seconds in (0.25, 0.5):
        tally.full_scan.took(seconds)
    tally.reload.took(0.125)
    tally.passes["rejected"] += 3
    status = Status(
        version="1.2", outcome="rejected", generation="abc", confirmed=True, confirmed_at=950.5,
        repositories=4, images=10, pinned=("a:1", "a:2"), held=("b:1",), waiting=7, leaving=5,
        only_stored_bytes=123456789012, problems=(ProblemStatus("p", "r", "m"),), watch_mode="poll",
    )  # fmt: skip
    found = read(text_of(status, tally))
    assert found["build_info", (("version", "1.2"),)] == 1
    assert found["start_time_seconds", ()] == 900
    assert found["last_pass_timestamp_seconds", ()] == 1000.5
    assert found["last_pass_outcome", (("outcome", "rejected"),)] == 1
    assert sum(value for (name, _), value in found.items() if name == "last_pass_outcome") == 1
    assert found["passes_total", (("outcome", "rejected"),)] == 3
    assert found["generation_info", (("generation", "abc"),)] == 1
    assert found["generation_confirmed", ()] == 1
    assert found["last_reload_timestamp_seconds", ()] == 950.5
    states = {labels[0][1]: value for (name, labels), value in found.items() if name == "images"}
    assert states == {"current": 7, "pinned": 2, "held": 1, "waiting": 7}
    assert found["repositories", ()] == 4
    assert found["problems", ()] == 1
    assert found["leaving_manifests", ()] == 5
    assert found["store_only_bytes", ()] == 123456789012
    assert found["watch_mode", (("mode", "poll"),)] == 1
    assert found["watch_mode", (("mode", "events"),)] == 0
    assert found["scan_duration_seconds_sum", (("depth", "full"),)] == 0.75
    assert found["scan_duration_seconds_count", (("depth", "full"),)] == 2
    assert found["last_scan_duration_seconds", (("depth", "full"),)] == 0.5
    assert ("last_scan_duration_seconds", (("depth", "light"),)) not in found
    assert found["reload_duration_seconds_count", ()] == 1


@pytest.mark.parametrize("value", ['a "quoted" word', "back\\slash", "two\nlines", "\\n", "ümläut", ""])
def test_any_text_comes_back_out_of_a_label_and_a_description(value: str) -> None:
    family = Family("name", "gauge", value, (Sample(1, (("first", value), ("second", value))),))
    (came,) = text_string_to_metric_families(str(family))
    assert came.documentation == value
    assert came.samples[0].labels == {"first": value, "second": value}


@pytest.mark.parametrize("value", [0, 1, 2**53, 0.1, 1e-9, 1e22, 1795423769.7771943])
def test_a_number_comes_back_as_it_was(value: float) -> None:
    assert read(str(Family("name", "gauge", "about", (Sample(value),)))) == {("name", ()): value}


def test_no_series_depends_on_what_is_in_the_tree() -> None:
    many = tuple(f"app:{number}" for number in range(1000))
    problems = tuple(ProblemStatus(each, "r", "m") for each in many)
    crowded = Status(generation="abc", images=5000, pinned=many, held=many, problems=problems)
    assert read(text_of(crowded)).keys() == read(text_of(Status(generation="abc"))).keys()


@pytest.mark.parametrize(
    "status", [Status(), Status(generation="abc", confirmed_at=1.0, outcome="published")]
)
def test_promtool_finds_no_fault(status: Status) -> None:
    assert promtool("check", "metrics", stdin=text_of(status)) == ""


# -- when it is written ----------------------------------------------------------------------------


def test_the_outcome_of_the_last_pass_is_the_only_one(reporter: Reporter) -> None:
    """No success of the past stays after a failure, and no failure after a recovery."""
    found = Found(repositories=1, tags=1)
    outcomes: list[tuple[Outcome, str]] = [
        (Published("g1", NONE), "published"),
        (Rejected("ours", "words"), "rejected"),
        (Unchanged("g1"), "unchanged"),
        (Unconfirmed("g2", NONE, "reason"), "unconfirmed"),
        (Published("g2", NONE), "published"),
        (Deferred("a reason"), "waiting"),
        (Failed("the disk is full"), "failed"),
        (Unchanged("g2"), "unchanged"),
    ]
    for now, (outcome, name) in enumerate(outcomes):
        reporter.report(outcome, found, now=now)
        told = numbers_of(reporter.metrics_file)
        assert told["passes_total", (("outcome", name),)] == [each for _, each in outcomes[: now + 1]].count(
            name
        )
        assert [labels[0][1] for (key, labels), on in told.items() if key == "last_pass_outcome" and on] == [
            name
        ]
        assert told["generation_confirmed", ()] == (name != "unconfirmed")


def test_it_is_written_when_it_tells_something_new_and_else_every_half_minute(reporter: Reporter) -> None:
    quiet, news = Found(tags=1), Found(tags=2)
    steps = [
        (0.0, quiet, True), (2.0, quiet, False), (29.0, quiet, False), (30.0, quiet, True),
        (31.0, news, True), (32.0, news, False), (61.0, news, True),
    ]  # fmt: skip
    before = ""
    for now, found, written in steps:
        reporter.report(Unchanged("g"), found, now=now)
        text = reporter.metrics_file.read_text()
        assert (text != before) == written, now
        before = text


def test_a_failure_keeps_what_was_served(reporter: Reporter) -> None:
    problem = Problem("/images/b", "it is broken", "Mend it.")
    found = Found(repositories=1, tags=3, pinned=(APP,), problems=(problem,), waiting=2, leaving=1)
    reporter.report(Published("g1", NONE), found, now=0)
    before = numbers_of(reporter.metrics_file)
    reporter.report(Failed("the images directory is gone"), Found(), now=1)
    after = numbers_of(reporter.metrics_file)
    kept = ("images", "problems", "repositories", "leaving_manifests", "generation_info")
    for key, value in before.items():
        if key[0] in kept:
            assert after[key] == value, key


def on_a_full_disk() -> None:
    with public_directory() as directory:
        disk = directory / "disk"
        disk.mkdir()
        mount("-t", "tmpfs", "-o", "size=16k,mode=755", "tmpfs", disk)
        path = disk / "metrics.prom"
        write(path, Status(outcome="published"), Tally(), clock=1)
        with (disk / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"x" * 512)
            except OSError:
                pass
        write(path, Status(outcome="failed"), Tally(), clock=2)
        assert numbers_of(path)["last_pass_outcome", (("outcome", "failed"),)] == 1
        unmount(disk)


def test_a_full_disk_does_not_leave_an_old_success() -> None:
    run_with_private_mounts(on_a_full_disk)


# -- the daemon ------------------------------------------------------------------------------------


def test_the_daemon_writes_it_for_everybody_to_read() -> None:
    require("nginx")
    with public_directory() as directory:
        images, path = directory / "images", directory / "images" / ".scr-watchd" / "metrics.prom"
        images.mkdir()
        private = ("sh", "-c", 'umask 077 && exec "$@"', "sh")
        with daemon("serve", images, "-l", f"127.0.0.1:{free_port()}", before=private) as process:
            process.says("this adds one")
            until(path.exists)
            assert path.stat().st_mode & 0o777 == 0o644
            write_image(images / "app:1", image("first"))
            (write_image(images / "half:1", image("half")) / "manifest.json").unlink()
            key = ("images", (("state", "current"),))
            told = until(lambda: numbers_of(path), lambda told: told[key] == 1 == told["problems", ()])
            assert told["watch_mode", (("mode", "events"),)] == 1
            assert told["reload_duration_seconds_count", ()] == 2
            assert 0 < told["last_reload_duration_seconds", ()] < 10
            assert 0 < told["last_scan_duration_seconds", (("depth", "full"),)] < 10
            remove(images / "half:1")
            until(lambda: numbers_of(path)["problems", ()], lambda problems: problems == 0)


@pytest.mark.slow
def test_an_idle_daemon_keeps_it_young() -> None:
    require("nginx")
    with public_directory() as directory:
        path = directory / ".scr-watchd" / "metrics.prom"
        with daemon("serve", directory, "-l", f"127.0.0.1:{free_port()}") as process:
            process.says("this adds one")
            first = until(lambda: path.exists() and numbers_of(path))
            assert first
            at = ("last_pass_timestamp_seconds", ())
            until(lambda: numbers_of(path)[at], lambda now: now > first[at] + 25, seconds=70)
            assert numbers_of(path)["passes_total", (("outcome", "published"),)] == 1


# -- config/ ---------------------------------------------------------------------------------------


def test_the_example_location_shows_it_to_whom_it_may(tmp_path: Path) -> None:
    example = (CONFIG / "nginx-metrics.conf").read_text()
    assert "/var/lib/scr-watchd/metrics.prom" in example
    port = free_port()
    with public_directory() as directory:
        write(directory / "metrics.prom", Status(), Tally(), clock=1)
        example = example.replace("/var/lib/scr-watchd", str(directory))
        with nginx_with("", f"listen 127.0.0.1:{port};\n{example}") as running:
            answer = ask(f"127.0.0.1:{port}", "/metrics/scr-watchd")
            assert answer.status == 200
            assert answer.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
            assert read(answer.body.decode()) == numbers_of(directory / "metrics.prom")
            assert running.ask("/metrics/scr-watchd").status == 403, "the Unix socket is not in the list"


def test_the_example_alerts_use_metrics_that_exist() -> None:
    told = read(text_of(Status(generation="abc", confirmed_at=1.0, nginx=Sight(up=True))))
    exist = {f"scr_watchd_{name}" for name, _ in told}
    assert set(re.findall(r"scr_watchd_\w+", ALERTS.read_text())) <= exist
    promtool("check", "rules", ALERTS)


def test_the_dashboard_asks_for_metrics_and_labels_that_exist_and_for_all_of_them(tmp_path: Path) -> None:
    status = Status(generation="abc", confirmed_at=1.0, confirmed=True, outcome="published")
    tally = Tally(began=900)
    for each in (tally.light_scan, tally.full_scan, tally.reload):
        each.took(0.5)
    told = read(text_of(status, tally))
    exist = {f"scr_watchd_{name}" for name, _ in told}
    labels = {label for _, found in told for label, _ in found} | {"instance"}
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert set(re.findall(r"scr_watchd_\w+", " ".join(asked))) == exist
    legends = [target["legendFormat"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert set(re.findall(r"\{\{(\w+)\}\}", " ".join(legends))) <= labels
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    rules = [
        {"record": f"panel:{number}", "expr": each.replace("$__rate_interval", "5m")}
        for number, each in enumerate(asked)
    ]
    file = tmp_path / "rules.yaml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


FINE = Status(generation="g", confirmed=True, confirmed_at=0.0, outcome="unchanged", watch_mode="events")
AGES = "0+60x180"
NEVER_AGAIN = "0x180"


@pytest.mark.parametrize(
    ("changes", "passes", "alert"),
    [
        pytest.param({}, AGES, "", id="all is well"),
        pytest.param({}, NEVER_AGAIN, "ScrWatchdIsNotRunning", id="it died"),
        pytest.param({"nginx": Sight(up=False)}, AGES, "ScrWatchdSeesNoNginx", id="nginx is down"),
        pytest.param({"nginx": Sight()}, AGES, "", id="nginx cannot be seen"),
        pytest.param({"outcome": "rejected"}, AGES, "ScrWatchdCannotPublish", id="nginx refuses the site"),
        pytest.param({"images": 20, "held": ("a:1",)}, AGES, "ScrWatchdHoldsRemovals", id="a disk is gone"),
        pytest.param(
            {"problems": (ProblemStatus("p", "r", "m"),)},
            AGES,
            "ScrWatchdLeavesImagesOut",
            id="one is broken",
        ),
        pytest.param(
            {"images": 1, "pinned": ("a:1",)}, AGES, "ScrWatchdServesOldCopies", id="a copy never ended"
        ),
        pytest.param({"watch_mode": "poll"}, AGES, "ScrWatchdPollsOnly", id="no file events"),
    ],
)
def test_the_example_alerts_fire_when_they_should(
    changes: dict[str, Any], passes: str, alert: str, tmp_path: Path
) -> None:
    """Three hours of the same status, as Prometheus itself judges them; ``passes`` is when it looked."""
    series = []
    for line in text_of(structs.replace(FINE, **changes)).splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values = passes if "last_pass_timestamp" in name else f"{value}x180"
            series.append({"series": name, "values": values})
    names = re.findall(r"alert: (\w+)", ALERTS.read_text())
    test = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [_case(each, alert) for each in names],
    }
    file = tmp_path / "test.yaml"  # of which JSON is a part
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [test]}))
    promtool("test", "rules", file)


def _case(name: str, alert: str) -> dict[str, object]:
    firing = f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)'
    return {
        "expr": firing,
        "eval_time": "3h",
        "exp_samples": [{"labels": "{}", "value": int(name == alert)}],
    }
