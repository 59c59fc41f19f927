"""Dockerfile, and the lines of docs/containers.md, with a real dockerd and real pulls."""

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from operator import eq
from pathlib import Path

import pytest

from scr_watchd import __version__
from tests.certificates import make_pair, password_line
from tests.clients.real_images import Workshop, skopeo
from tests.containers import base, pods
from tests.containers.engine import Engine, engine, place
from tests.daemons import public_directory
from tests.documents import HOUSE, block, text
from tests.nginxes import require
from tests.trees import image, write_image
from tests.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.slow]

PAGE = text("docs/containers.md")
RUN = block("docs/containers.md", "In containers", "-p 127.0.0.1:5000:80 -v")
SOON = 20.0


@dataclass(frozen=True)
class Yard:
    """A dockerd that has our images, and two images to drop in."""

    engine: Engine
    first: str
    second: str
    large: str


@pytest.fixture(scope="module")
def yard(request: pytest.FixtureRequest) -> Iterator[Yard]:
    with place() as directory:
        with engine(directory, network=False) as building:
            tarball = base.tarball(request.config.cache.mkdir("base-image"))
            building.docker("import", tarball, base.NAME)
            for line in block("docs/containers.md", "In containers", "docker build").splitlines():
                # its own network has no internet, and needs none
                building.shell(line.replace("docker build", "docker build --network=host"), HOUSE)
            for name, target in (("nginx", "default"), ("nginxinc/nginx-unprivileged", "unprivileged")):
                where = ("--target", target, "-t", f"{name}:stable", HOUSE / "tests/containers/nginx")
                building.docker("build", "--network=host", *where)
        workshop = Workshop(directory / "workshop")
        workshop.directory.mkdir()
        with engine(directory, network=True) as running:
            yield Yard(
                running,
                first=workshop.build("first"),
                second=workshop.build("second"),
                large=workshop.build("large", content="large " * 10_000_000),
            )


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with an empty directory of images; `images` is what the page calls it."""
    with public_directory() as made:
        (made / "images").mkdir()
        yield made


@pytest.fixture
def docker(yard: Yard, directory: Path) -> Iterator[Engine]:
    """Without a container left, before ``directory`` is removed below one that writes there."""
    yield yard.engine
    yard.engine.remove_everything()


def copy(source: str, target: Path) -> str:
    """Drop an image in; returns the digest by which it is pulled."""
    target.parent.mkdir(exist_ok=True)
    skopeo("copy", "--quiet", source, f"dir:{target}")
    return str(skopeo("manifest-digest", target / "manifest.json")).strip()


def pull(docker: Engine, reference: str) -> str:
    """Pull as docker does, retried until the image is there; returns the digest that came."""
    until(lambda: docker.run("docker", "pull", reference, check=False).returncode == 0, seconds=SOON)
    (named,) = json.loads(docker.docker("inspect", "--format", "{{json .RepoDigests}}", reference))
    docker.docker("rmi", reference)
    return str(named).partition("@")[2]


def status(docker: Engine, container: str) -> dict[str, object]:
    result = docker.run("docker", "exec", container, "scr-watchd", "status", "--json", check=False)
    return dict(json.loads(result.stdout or "{}"))


def stop(docker: Engine, container: str) -> None:
    """`docker stop` ends it in time, of its own accord, and whole."""
    began = time.monotonic()
    docker.docker("stop", container)
    assert time.monotonic() - began < 5
    assert docker.inspect(container, "State.ExitCode") == 0
    assert docker.run("docker", "top", container, check=False).returncode != 0, "nothing runs"


# -- an nginx of its own -----------------------------------------------------------------------------


def test_the_quick_start_serves_what_is_dropped_in(docker: Engine, yard: Yard, directory: Path) -> None:
    docker.shell(RUN, directory)
    digest = copy(yard.first, directory / "images/alpine:3.20")
    assert pull(docker, "127.0.0.1:5000/alpine:3.20") == digest
    digest = copy(yard.second, directory / "images/other:1")
    assert pull(docker, "127.0.0.1:5000/other:1") == digest
    assert f"other:1 is there ({digest})" in docker.logs("registry"), "without an address that it cannot know"
    told = status(docker, "registry")
    assert (told["running"], told["links"]) == (True, "hard")
    stop(docker, "registry")


def test_it_takes_the_place_of_the_original_image(docker: Engine, yard: Yard, directory: Path) -> None:
    """The original's own line, with the name of our image: nothing is writable but two tmpfs."""
    line = (
        block("docs/containers.md", "In containers", "--name static-oci-registry")
        .replace("docker run", "docker run -d")
        .replace("--rm", "")
    )
    digest = copy(yard.first, directory / "images/app/1")
    docker.shell(line.replace("/absolute/path/to/images", f"{directory}/images"), directory)
    assert pull(docker, "127.0.0.1/app:1") == digest
    digest = copy(yard.second, directory / "images/more:1")
    assert pull(docker, "127.0.0.1/more:1") == digest
    assert sorted(path.name for path in (directory / "images").iterdir()) == ["app", "more:1"]
    assert status(docker, "static-oci-registry")["running"]
    stop(docker, "static-oci-registry")
    docker.shell(block("docs/containers.md", "In containers", "generate --server-root"), directory)
    assert "/srv/images/app/1/" in (directory / "registry.conf").read_text()


def test_any_user_will_do_without_a_capability(docker: Engine, yard: Yard, directory: Path) -> None:
    os.chown(directory / "images", 1000, 1000)
    docker.shell(block("docs/containers.md", "In containers", "--user 1000:1000"), directory)
    digest = copy(yard.first, directory / "images/app:1")
    assert pull(docker, "127.0.0.1:5000/app:1") == digest
    assert docker.docker("exec", "registry", "id", "-u") == "1000"
    stop(docker, "registry")


def test_https_and_passwords_in_the_container(docker: Engine, yard: Yard, directory: Path) -> None:
    """The files lie in a directory of the operator's, so that a renewal comes through."""
    certificate, key = make_pair(directory, "tls")
    passwords = directory / "passwords"
    passwords.write_text(password_line("reader", "secret"))
    passwords.chmod(0o644)
    digest = copy(yard.first, directory / "images/app:1")
    line = block("docs/containers.md", "In containers", "TLS_CERT")
    docker.shell(line.replace("-v /etc/registry:", f"-v {directory}:"), directory)
    docker.says("registry", "app:1 is there")
    for refused in (("--src-creds=reader:secret",), (f"--src-cert-dir={_trusting(directory, certificate)}",)):
        assert not _skopeo(docker, directory, *refused)
    trusting = (f"--src-cert-dir={directory}/trust", "--src-creds=reader:secret")
    assert _skopeo(docker, directory, *trusting)
    assert docker.run("docker", "pull", "127.0.0.1:443/app:1", check=False).returncode != 0
    docker.run("docker", "login", "-u", "reader", "--password-stdin", "127.0.0.1:443", input="secret")
    assert pull(docker, "127.0.0.1:443/app:1") == digest
    (deployment, *_) = [each for each in pods.documents("all-in-one") if each["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for probe in (container["readinessProbe"], container["livenessProbe"]):
        docker.docker("exec", "registry", *probe["exec"]["command"])
    second, second_key = make_pair(directory, "second")
    second.rename(certificate)
    docker.docker("kill", "--signal=HUP", "registry")
    docker.says("registry", "the certificate stays as it was")
    assert _skopeo(docker, directory, *trusting)
    second_key.rename(key)
    docker.says("registry", "the certificate was renewed, and nginx uses it")
    assert not _skopeo(docker, directory, *trusting), "that CA is not trusted any more"
    _trusting(directory, certificate)
    assert _skopeo(docker, directory, *trusting)
    docker.run("docker", "logout", "127.0.0.1:443")
    stop(docker, "registry")


def _trusting(directory: Path, certificate: Path) -> Path:
    (directory / "trust").mkdir(exist_ok=True)
    (directory / "trust" / "ca.crt").write_bytes(certificate.read_bytes())
    return directory / "trust"


def _skopeo(docker: Engine, directory: Path, *options: str) -> bool:
    """Whether skopeo can pull with these ``options``."""
    target = f"dir:{directory}/pulled"
    pulled = docker.run("skopeo", "copy", *options, "docker://127.0.0.1:443/app:1", target, check=False)
    return pulled.returncode == 0


def test_it_becomes_healthy_and_says_so(docker: Engine, directory: Path) -> None:
    write_image(directory / "images/app:1", image("first"))
    write_image(directory / "images/half:1", image("half"))
    (directory / "images/half:1/manifest.json").unlink()
    docker.docker("run", "-d", "--name", "registry", "--health-interval=1s", "-v",
                  f"{directory}/images:/var/lib/images", "scr-watchd")  # fmt: skip
    until(
        lambda: docker.inspect("registry", "State.Health.Status"), lambda now: now == "healthy", seconds=SOON
    )
    labels = docker.inspect("registry", "Config.Labels")
    assert {f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses")} <= set(
        labels
    )
    assert labels["org.opencontainers.image.version"] == __version__


@pytest.mark.parametrize(
    "init", [pytest.param((), id="is process 1"), pytest.param(("--init",), id="is not")]
)
def test_nobody_is_left_as_a_zombie(docker: Engine, directory: Path, init: tuple[str, ...]) -> None:
    """Workers of a master that was killed are inherited by process 1, which is us, or docker's."""
    mount = f"{directory}/images:/var/lib/images"
    docker.docker("run", "-d", "--name", "registry", *init, "-v", mount, "scr-watchd")
    docker.says("registry", "serving 0 images")
    docker.docker(
        "exec", "registry", "sh", "-c", "kill -9 $(cat /var/lib/images/.scr-watchd/serve/nginx.pid)"
    )
    docker.says("registry", "nginx ended by signal 9, and was started again")
    docker.docker("exec", "-d", "registry", "sh", "-c", "sh -c 'sleep 0.3' & exec true")

    def is_clean(found: list[tuple[str, str]]) -> bool:
        masters = [args for _, args in found if args.startswith("nginx: master")]
        odd = [args for state, args in found if "Z" in state or "sleep" in args]
        return len(masters) == 1 and not odd

    until(lambda: docker.processes("registry"), is_clean)
    stop(docker, "registry")


def test_it_stops_in_time_with_a_download_under_way(docker: Engine, yard: Yard, directory: Path) -> None:
    copy(yard.large, directory / "images/large:1")
    docker.docker("run", "-d", "--name", "registry", "-p", "127.0.0.1:5000:80", "-v",
                  f"{directory}/images:/var/lib/images", "scr-watchd")  # fmt: skip
    docker.says("registry", "large:1 is there")
    layer = max((directory / "images/large:1").iterdir(), key=lambda path: path.stat().st_size)
    came = directory / "came"
    with docker.start("curl", "-s", "--limit-rate", "100k", "-o", came,
                      f"http://127.0.0.1:5000/v2/large/blobs/sha256:{layer.name}"):  # fmt: skip
        until(lambda: came.exists() and came.stat().st_size, seconds=SOON)
        stop(docker, "registry")


# -- beside an nginx of another container ------------------------------------------------------------

ALL_IN_ONE = block("docs/containers.md", "Beside an nginx image", "--profile all-in-one")
SIDECAR = block("docs/containers.md", "Beside an nginx image", "--profile sidecar")
SCRIPT = block("docs/containers.md", "Beside an nginx image", "--profile script")


@pytest.mark.parametrize(
    ("lines", "container"),
    [
        pytest.param(ALL_IN_ONE, "registry", id="an nginx of its own"),
        pytest.param(SIDECAR, "scr-watchd", id="scr-watchd reloads nginx"),
        pytest.param(SCRIPT, "scr-watchd-asking", id="nginx reloads itself"),
    ],
)
def test_the_compose_file_runs(
    docker: Engine, yard: Yard, directory: Path, lines: str, container: str
) -> None:
    (directory / "config").symlink_to(HOUSE / "config")
    line = lines.replace("docker compose", compose(docker))
    docker.shell(line, directory)
    (name,) = docker.docker("ps", "--format", "{{.Names}}", "--filter", f"name={container}[-_]").split()
    for source, tag in ((yard.first, "app:1"), (yard.second, "other:1"), (yard.second, "app:1")):
        digest = copy(source, directory / "data/images" / tag)
        until(partial(pull, docker, f"127.0.0.1:5000/{tag}"), partial(eq, digest), seconds=SOON)
    told = status(docker, name)
    assert (told["running"], told["confirmed"], told["links"]) == (True, True, "hard")
    docker.shell(line.replace("up -d", "down --timeout 5"), directory)
    assert docker.docker("ps", "-aq") == ""


def compose(docker: Engine) -> str:
    """Debian 12 has the first compose, a program of its own."""
    is_plugin = docker.run("docker", "compose", "version", check=False).returncode == 0
    return "docker compose" if is_plugin else require("docker-compose")


def beside(docker: Engine, directory: Path, *more: str, nginx: tuple[str, ...] = ()) -> None:
    """A container `nginx` and a container `sidecar` with ``more`` options, over ``directory``."""
    site = HOUSE / "config/nginx-image/registry.conf"
    docker.docker("run", "-d", "--name", "nginx", "-p", "127.0.0.1:5000:80", *nginx,
                  "-v", f"{directory}:/var/lib/scr-watchd:ro",
                  "-v", f"{site}:/etc/nginx/conf.d/default.conf:ro", "nginx:stable")  # fmt: skip
    docker.docker("run", "-d", "--name", "sidecar", "-v", f"{directory}:/var/lib/scr-watchd", *more,
                  "scr-watchd:sidecar")  # fmt: skip


def test_nginx_may_see_the_images_elsewhere(docker: Engine, yard: Yard, directory: Path) -> None:
    (directory / "state").mkdir()
    beside(
        docker, directory / "state", "--pid=container:nginx", "--read-only",
        "-v", f"{directory}/images:/images:ro",
        "-e", "SCR_WATCHD_ROOT=/images", "-e", "SCR_WATCHD_SERVER_ROOT=/srv/images",
        nginx=("-v", f"{directory}/images:/srv/images:ro"),
    )  # fmt: skip
    digest = copy(yard.first, directory / "images/app:1")
    assert pull(docker, "127.0.0.1:5000/app:1") == digest


def test_another_user_may_not_signal_nginx_and_is_told_what_to_do(docker: Engine, directory: Path) -> None:
    os.chown(directory, 1000, 1000)
    write_image(directory / "images/app:1", image("first"))
    beside(docker, directory, "--pid=container:nginx", "--user=1000:1000")
    docker.says("sidecar", "user 1000 may not signal nginx (process 1 of user 0): run scr-watchd as user 0")
    for words in re.findall(r"> (user 1000 may not .*)", PAGE):
        docker.says("sidecar", words)


def test_without_a_common_process_table_it_says_so(docker: Engine, directory: Path) -> None:
    write_image(directory / "images/app:1", image("first"))
    beside(docker, directory)
    docker.says("sidecar", "this container sees its own processes only: have it share nginx's")


def test_the_script_keeps_what_nginx_refuses_away_from_it(docker: Engine, directory: Path) -> None:
    """And goes on by itself when that is mended; and is gone when nginx is."""
    script = HOUSE / "config/nginx-image/90-scr-watchd-reload.sh"
    sites = directory / "sites"
    sites.mkdir()
    write_image(directory / "images/app:1", image("first"))
    # in a process table that outlives nginx's container, as in a pod
    docker.docker("run", "-d", "--name", "pause", "--entrypoint", "sleep", "scr-watchd:sidecar", "infinity")
    beside(
        docker, directory, "--network=container:nginx",
        "-e", "SCR_WATCHD_RELOAD=none", "-e", "SCR_WATCHD_CONFIRM=http://127.0.0.1/",
        nginx=("--pid=container:pause", "-v", f"{script}:/docker-entrypoint.d/{script.name}:ro",
               "-v", f"{sites}:/etc/nginx/sites-enabled:ro", "-e", "SCR_WATCHD_SECONDS=0.2"),
    )  # fmt: skip
    docker.says("sidecar", "app:1 is there")
    (sites / "broken").write_text("oops;\n")
    write_image(directory / "images/app:2", image("second"))
    docker.says("nginx", 'unknown directive "oops" in /etc/nginx/sites-enabled/broken:1')
    assert docker.status("127.0.0.1:5000", "/v2/app/manifests/1") == 200
    assert docker.status("127.0.0.1:5000", "/v2/app/manifests/2") == 404
    (sites / "broken").unlink()
    until(
        lambda: docker.status("127.0.0.1:5000", "/v2/app/manifests/2"), lambda now: now == 200, seconds=SOON
    )
    docker.docker("stop", "nginx")
    left = [args for _, args in docker.processes("pause")]
    assert left == ["sleep infinity"]


# -- in a cluster ------------------------------------------------------------------------------------


def generation(docker: Engine, pod: pods.Pod) -> str:
    return str(docker.ask(f"{pod.address}:8080", "/v2/_scr/generation").json()["generation"])


@pytest.mark.parametrize("variant", ["all-in-one", "sidecar"])
def test_replicas_over_one_volume_agree(
    docker: Engine, yard: Yard, directory: Path, tmp_path: Path, variant: str
) -> None:
    copy(yard.first, directory / "images/app:1")
    replicas = []
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        replicas.append(
            pods.start(
                docker, variant, f"pod{number}", images=directory / "images", scratch=tmp_path / number
            )
        )
    first, second = replicas
    before = generation(docker, first)
    assert generation(docker, second) == before
    digest = copy(yard.second, directory / "images/other:1")
    for pod in replicas:
        waited = docker.docker("exec", pod.containers["scr-watchd"], "scr-watchd", "wait", "other:1")
        assert waited == digest
        came = docker.run("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}",
                          f"docker://{pod.address}:8080/other:1")  # fmt: skip
        assert came.stdout.strip() == digest
    assert generation(docker, first) != before
    assert generation(docker, first) == generation(docker, second)
    assert sorted(path.name for path in (directory / "images").iterdir()) == ["app:1", "other:1"]


# -- other daemons that pull -------------------------------------------------------------------------


def test_docker_in_docker_and_containerd_pull_by_a_name(
    docker: Engine, yard: Yard, directory: Path, tmp_path: Path
) -> None:
    """A dockerd in a container made of this machine's programs, and the hosts.toml for kind's nodes."""
    digest = copy(yard.first, directory / "images/alpine:3.20")
    network, registry, inner, pull_line = block(
        "docs/containers.md", "From kind, docker in docker and Docker Desktop", "docker:dind"
    ).splitlines()
    docker.shell(f"{network}\n{registry}", directory)
    docker.says("registry", "alpine:3.20 is there")
    options = ["--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--security-opt=seccomp=unconfined"]
    for mount in ("/usr:/usr:ro", "/etc/alternatives:/etc/alternatives:ro", "/sys/fs/cgroup:/sys/fs/cgroup"):
        options += ["-v", mount]
    options += ["-v", f"{tmp_path}:/var/lib/docker", "--entrypoint", "dockerd", base.NAME]
    # a machine of CI may not have every capability to give away, as --privileged would
    inner = inner.replace("--privileged", "").replace("docker:dind", " ".join(options))
    docker.shell(inner, directory)
    docker.says("dind", "API listen on")
    assert digest in docker.shell(pull_line, directory)

    for_kind = block("docs/containers.md", "From kind, docker in docker and Docker Desktop", "kind get nodes")
    (hosts,) = re.findall(r"^(\[host\.\S+registry:80\S+)$", for_kind, re.MULTILINE)
    address = docker.inspect("registry", "NetworkSettings.Networks")["lab"]["IPAddress"]
    known = directory / "certs.d/localhost:5000"
    known.mkdir(parents=True)
    (known / "hosts.toml").write_text(hosts.replace("registry", address))
    containerd = docker.directory / "docker-run/containerd/containerd.sock"
    said = docker.run("ctr", "--address", containerd, "--namespace", "kind", "images", "pull",
                      "--hosts-dir", known.parent, "localhost:5000/alpine:3.20").stdout  # fmt: skip
    assert digest in said
    docker.docker("rm", "-f", "dind", "registry")
    docker.docker("network", "rm", "lab")


# -- figures -----------------------------------------------------------------------------------------


def test_the_figures_are_printed_by_the_documented_commands(
    docker: Engine, yard: Yard, directory: Path
) -> None:
    copy(yard.first, directory / "images/app:1")
    docker.shell(RUN, directory)
    docker.says("registry", "app:1 is there")
    commands = block("docs/performance.md", "Containers")
    said = docker.shell(commands, directory)
    docker.docker("rm", "-f", "registry")
    beside(docker, directory, "--pid=container:nginx")
    docker.says("sidecar", "app:1 is there")
    said += docker.shell(commands.replace("registry", "sidecar"), directory)
    print(said)  # noqa: T201 - pytest -rP shows it
    sizes = [int(number) for number in re.findall(r"^scr-watchd:\S+ (\d+)$", said, re.MULTILINE)]
    assert max(sizes) < 160e6
    for command in ("serve", "run"):
        found = re.search(rf"^\d+ +(\d+) .*scr-watchd {command}$", said, re.MULTILINE)
        assert found
        assert int(found[1]) < 45_000, "kilobytes"
