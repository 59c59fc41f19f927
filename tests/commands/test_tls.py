"""`serve` with HTTPS and passwords: renewals, half renewals, and what lies where."""

import base64
import http.client
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import encrypted, make_pair, password_line
from tests.commands.test_serve import images, serving
from tests.daemons import daemon, free_port, public_directory, scr_watchd
from tests.documents import block
from tests.http import ask
from tests.nginxes import binaries, require, require_root
from tests.trees import image, write_image
from tests.waiting import until

__all__ = ["images"]  # a fixture

BUILT = image("first")


@pytest.fixture
def tls() -> Iterator[Path]:
    """A directory with a pair of files that an operator renews: tls.crt and tls.key."""
    with public_directory() as directory:
        make_pair(directory, "tls")
        yield directory


def of(tls: Path) -> tuple[object, ...]:
    return ("--tls-cert", tls / "tls.crt", "--tls-key", tls / "tls.key")


def get(address: str, path: str, *, user: str = "", trust: Path | None = None) -> tuple[int, bytes]:
    """Ask by HTTPS; without ``trust`` whatever the certificate is."""
    context = ssl.create_default_context(cafile=trust)
    if trust is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(address, timeout=10, context=context)
    headers = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if user else {}
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def name_at(address: str) -> str:
    """Whose certificate answers."""
    said = subprocess.run(
        [require("openssl"), "s_client", "-connect", address], input="", capture_output=True, text=True,
        check=False, timeout=20,
    ).stdout  # fmt: skip
    return said.partition("subject=CN = ")[2].partition("\n")[0]


def kept(images: Path) -> Path:
    """The file that nginx reads, as its configuration names it."""
    config = (images / ".scr-watchd" / "serve" / "nginx.conf").read_text()
    return Path(config.partition('ssl_certificate "')[2].partition('"')[0])


@pytest.mark.parametrize("nginx", binaries())
def test_https_answers_with_the_certificate_by_tls_1_2_and_1_3(
    images: Path, tls: Path, nginx: object
) -> None:
    write_image(images / "app:1", BUILT)
    assert callable(nginx)
    with serving(images, "--nginx", nginx(), *of(tls)) as (process, address):
        assert get(address, "/v2/app/manifests/1", trust=tls / "tls.crt") == (200, BUILT.raw)
        process.says(rf"^listening on {address} \(HTTPS\)$")
        assert "[warn]" not in process.said()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=tls / "tls.crt")
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2"])
            host, _, port = address.partition(":")
            plain = socket.create_connection((host, int(port)), timeout=10)
            with context.wrap_socket(plain, server_hostname=host) as connection:
                assert connection.selected_alpn_protocol() == "h2"


def test_the_copy_of_the_key_is_private_and_not_among_the_images(images: Path, tls: Path) -> None:
    with serving(images, *of(tls)):
        copy = kept(images)
        assert not copy.is_relative_to(images)
        assert (copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        found = subprocess.run(["grep", "-rl", "PRIVATE KEY", images], capture_output=True, check=False)
        assert found.stdout == b""
    assert not copy.exists(), "it goes with nginx"
    state = images.parent / "state"
    with daemon("serve", images, "-l", free_port(), "--state", state, *of(tls)) as process:
        process.says("^serving 0 images")
        assert (state / "tls" / "certificate.pem").exists()


def test_a_renewal_is_taken_without_a_restart_and_without_a_failed_request(images: Path, tls: Path) -> None:
    """As certbot renews: by links, one file after the other."""
    write_image(images / "app:1", BUILT)
    make_pair(tls, "second")
    for kind in ("crt", "key"):
        (tls / f"live.{kind}").symlink_to(f"tls.{kind}")
    options = ("--tls-cert", tls / "live.crt", "--tls-key", tls / "live.key")
    with serving(images, *options) as (process, address):
        pid = (images / ".scr-watchd" / "serve" / "nginx.pid").read_text()
        failed: list[object] = []
        stop = threading.Event()

        def pull() -> None:
            while not stop.is_set():
                try:
                    status, _ = get(address, "/v2/app/manifests/1")
                except OSError as error:
                    failed.append(error)
                else:
                    failed.extend([status] if status != 200 else [])

        puller = threading.Thread(target=pull)
        puller.start()
        try:
            replace_link(tls, "crt")
            process.process.send_signal(signal.SIGHUP)
            process.says(
                "^error: the certificate stays as it was: tls_key .* does not belong to the certificate"
            )
            assert name_at(address) == "tls"
            write_image(images / "app:2", image("second"))
            process.says("^app:2 is there")
            replace_link(tls, "key")
            process.process.send_signal(signal.SIGHUP)
            process.says("^the certificate was renewed, and nginx uses it")
            assert name_at(address) == "second"
        finally:
            stop.set()
            puller.join()
        assert failed == []
        assert (images / ".scr-watchd" / "serve" / "nginx.pid").read_text() == pid


def replace_link(tls: Path, kind: str) -> None:
    (tls / "new").symlink_to(f"second.{kind}")
    (tls / "new").rename(tls / f"live.{kind}")


@pytest.mark.slow
def test_a_renewal_is_seen_within_ten_seconds_without_a_signal(images: Path, tls: Path) -> None:
    make_pair(tls, "second")
    with serving(images, *of(tls)) as (process, address):
        for kind in ("key", "crt"):
            (tls / f"second.{kind}").rename(tls / f"tls.{kind}")
        process.says("^the certificate was renewed, and nginx uses it", seconds=30)
        assert name_at(address) == "second"


def test_a_copy_that_somebody_tidied_away_is_made_again(images: Path, tls: Path) -> None:
    with serving(images, *of(tls)) as (process, address):
        kept(images).unlink()
        write_image(images / "app:1", BUILT)
        process.says("^app:1 is there")
        assert get(address, "/v2/app/manifests/1") == (200, BUILT.raw)
        kept(images).unlink()
        os.kill(int((images / ".scr-watchd" / "serve" / "nginx.pid").read_text()), signal.SIGKILL)
        process.says("^warning: nginx ended by signal 9, and was started again")
        assert until(lambda: get(address, "/v2/app/manifests/1"))[0] == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(
            lambda tls: (tls / "tls.crt").unlink(), "tls.crt cannot be read: No such file", id="none"
        ),
        pytest.param(
            lambda tls: (tls / "tls.key").write_text("x"), "tls.key holds no private key", id="no key"
        ),
        pytest.param(
            lambda tls: (tls / "tls.crt").write_bytes((tls / "tls.key").read_bytes()),
            "tls.crt holds no certificate",
            id="a key",
        ),
        pytest.param(
            lambda tls: make_pair(tls, "b")[1].rename(tls / "tls.key"), "does not belong to", id="another's"
        ),
        pytest.param(
            lambda tls: encrypted(tls / "tls.key").rename(tls / "tls.key"), "is encrypted", id="encrypted"
        ),
        pytest.param(
            lambda tls: (tls / "tls.crt").write_text(
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
            ),
            "nginx refuses tls_cert or tls_key",
            id="damaged",
        ),
        pytest.param(lambda tls: _fifo(tls / "tls.key"), "tls.key cannot be read", id="a FIFO"),
    ],
)
def test_bad_files_are_one_line_before_nginx_starts(
    images: Path, tls: Path, change: object, words: str
) -> None:
    assert callable(change)
    change(tls)
    result = scr_watchd("serve", images, "-l", free_port(), *of(tls))
    assert result.returncode == 78
    line, hint = result.stderr.splitlines()
    assert words in line
    assert hint.startswith("  hint: ")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def test_one_without_the_other_is_a_wrong_setting(images: Path, tls: Path) -> None:
    result = scr_watchd("serve", images, "--tls-cert", tls / "tls.crt")
    assert (result.returncode, "tls_cert and tls_key need each other" in result.stderr) == (78, True)


def test_a_key_that_everybody_may_read_is_a_warning(images: Path, tls: Path) -> None:
    (tls / "tls.key").chmod(0o644)
    with serving(images, *of(tls)) as (process, _):
        process.says(
            rf"^warning: everybody may read the key {tls}/tls.key \(mode 0644\): chmod o= {tls}/tls.key$"
        )


def test_a_key_of_root_does_not_go_where_another_user_could_take_it(images: Path, tls: Path) -> None:
    """What lies in our directory is no link of somebody else's, and the directory is ours."""
    require_root("only root has something to lose here")
    state = images.parent / "state"
    state.mkdir()
    victim = images.parent / "victim"
    victim.mkdir()
    os.chown(victim, 12345, 12345)
    (state / "tls").symlink_to(victim)
    result = scr_watchd("serve", images, "-l", free_port(), "--state", state, *of(tls))
    assert result.returncode == 1
    assert list(victim.iterdir()) == []
    (state / "tls").unlink()
    (state / "tls").mkdir()
    os.chown(state / "tls", 12345, 12345)
    result = scr_watchd("serve", images, "-l", free_port(), "--state", state, *of(tls))
    assert result.returncode == 1
    assert list((state / "tls").iterdir()) == []


# -- passwords -------------------------------------------------------------------------------------


def test_a_password_is_asked_for_everything_and_a_new_one_needs_no_restart(images: Path, tls: Path) -> None:
    write_image(images / "app:1", BUILT)
    file = tls / "passwords"
    file.write_text(password_line("reader", "secret"))
    with serving(images, *of(tls), "--htpasswd", file) as (_, address):
        for path in ("/v2/", "/v2/app/manifests/1", "/v2/app/tags/list", "/v2/_catalog"):
            assert get(address, path)[0] == 401
            assert get(address, path, user="reader:secret")[0] == 200
        file.write_text(password_line("reader", "other"))
        assert get(address, "/v2/", user="reader:other")[0] == 200
        assert get(address, "/v2/", user="reader:secret")[0] == 401
        assert scr_watchd("status", images).returncode == 0
        assert scr_watchd("wait", "app:1", images).returncode == 0


def test_odd_passwords_are_warned_of_with_what_to_do(images: Path, tls: Path) -> None:
    file = tls / "passwords"
    file.write_text(f"reader:$2y$10${'a' * 53}\n")
    with serving(images, "--htpasswd", file) as (process, _):
        process.says(rf"^warning: htpasswd {file} has bcrypt passwords \(\$2\).* openssl passwd -apr1")
    result = scr_watchd("serve", images, "--htpasswd", tls / "nothing")
    assert result.returncode == 78
    assert "nothing cannot be read: No such file or directory\n  hint: printf" in result.stderr


def test_passwords_that_workers_cannot_read_are_warned_of(images: Path, tls: Path) -> None:
    require_root("only root's nginx has workers of another user")
    file = tls / "passwords"
    file.write_text(password_line("reader", "secret"))
    file.chmod(0o640)
    with serving(images, "--htpasswd", file) as (process, _):
        said = process.says(
            r"^warning: nobody may not read \S+ \((chgrp \w+ \S+ && chmod g\+r \S+)\), so every"
        )
    subprocess.run(["sh", "-c", said[1]], check=True)
    with serving(images, "--htpasswd", file) as (process, address):
        assert "warning" not in process.said()
        assert _plain(address, "reader:secret") == 200


def _plain(address: str, user: str) -> int:
    value = base64.b64encode(user.encode()).decode()
    return ask(address, "/v2/", headers={"Authorization": f"Basic {value}"}).status


def test_the_pages_way_makes_what_serve_takes(images: Path, tls: Path) -> None:
    subprocess.run(
        ["sh", "-ec", block("docs/serve.md", "From another machine", "openssl req")], cwd=tls, check=True
    )
    with serving(images, *of(tls), "--htpasswd", tls / "passwords") as (process, address):
        assert get(address, "/v2/", user="puller:secret")[0] == 200
        assert get(address, "/v2/")[0] == 401
        assert name_at(address) == "mirror.example.com"
        assert "warning" not in process.said()


def test_run_has_no_such_flags(tls: Path) -> None:
    assert scr_watchd("run", *of(tls)).returncode == 2
