"""Certificates and passwords of operators, made by openssl."""

import subprocess
from pathlib import Path

from tests.nginxes import require


def make_pair(directory: Path, name: str, *, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """A self-signed certificate and its key: NAME.crt and NAME.key."""
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    kind = "IP" if host[0].isdecimal() else "DNS"
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", f"/CN={name}", "-addext", f"subjectAltName={kind}:{host}",
        "-keyout", key, "-out", certificate,
    )  # fmt: skip
    key.chmod(0o600)
    return certificate, key


def encrypted(key: Path) -> Path:
    made = key.with_suffix(".encrypted")
    _openssl("pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", made)
    return made


def password_line(user: str, password: str) -> str:
    return f"{user}:{_openssl('passwd', '-apr1', password).strip()}\n"


def _openssl(*words: object) -> str:
    result = subprocess.run(
        [require("openssl"), *map(str, words)], capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout
