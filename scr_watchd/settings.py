"""One frozen Settings, from flags, environment, file and defaults, checked at the door."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from scr_watchd.errors import ConfigurationError, did_you_mean

DEFAULT_FILE = Path("/etc/scr-watchd/config.toml")
_ENVIRONMENT = "SCR_WATCHD_"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every setting with its default; the descriptions are the help of the flags."""

    root: Annotated[Path, Meta(description="the images tree")] = Path("/var/lib/scr-watchd/images")
    state: Annotated[Path, Meta(description="where the daemon keeps what it publishes")] = Path(
        "/var/lib/scr-watchd"
    )
    store: Annotated[str, Meta(description="the links that nginx serves from: auto, or a directory")] = "auto"
    server_root: Annotated[
        str, Meta(description="the images tree as nginx sees it, if elsewhere than here")
    ] = ""
    name_prefix: Annotated[str, Meta(description="goes before every repository name, e.g. mirror/")] = ""
    catalog: Annotated[bool, Meta(description="answer /v2/_catalog with every repository")] = True
    browse: Annotated[bool, Meta(description="answer /v2/_scr/ with a page to look around")] = True

    mirrors: Annotated[
        dict[str, str],
        Meta(
            description="for clients that name the upstream (?ns=HOST): HOST=PREFIX of names, and so on, "
            "or *=* for every host"
        ),
    ] = {}

    warning: Annotated[
        str, Meta(description="a sentence that clients show to whoever pulls, in a Warning header")
    ] = ""

    verify: Annotated[
        Literal["new", "size"],
        Meta(description="what a blob must have before it is published: its digest, or only its size"),
    ] = "new"
    grace_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=31_536_000,
            description="how long what was replaced or removed can still be pulled by digest; "
            "at most 60 while the disk is nearly full",
        ),
    ] = 3600
    hold_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=31_536_000,
            description="how long removals are held if most images, or the root, vanish at once; 0: never",
        ),
    ] = 86400

    quiet_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="what is gone or wrong counts once nothing has changed there for so long",
        ),
    ] = 0.25
    max_wait_seconds: Annotated[
        float, Meta(ge=0, le=3600, description="and at the latest after so long of changes")
    ] = 2
    rescan_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=86400,
            description="the interval between looks at every file; where that is costly up to ten minutes",
        ),
    ] = 10
    watch: Annotated[
        Literal["auto", "inotify", "poll"],
        Meta(description="file events, or a look every two seconds; auto takes events where there are any"),
    ] = "auto"

    tls_cert: Annotated[
        str, Meta(description="serve: the certificate for HTTPS, with its chain; links are followed")
    ] = ""
    tls_key: Annotated[str, Meta(description="serve: its private key")] = ""
    htpasswd: Annotated[
        str, Meta(description="serve: who may pull, NAME:HASH in each line; nginx's workers read it")
    ] = ""

    nginx: Annotated[str, Meta(description="nginx's program")] = "nginx"
    nginx_config: Annotated[
        str, Meta(description="the site's main configuration; empty: asked of nginx -V")
    ] = ""
    nginx_pid_file: Annotated[
        str, Meta(description="the pid file of nginx's master; empty: from its configuration, or nginx -V")
    ] = ""
    nginx_user: Annotated[
        str,
        Meta(
            description="who must be able to read what is published: nginx's worker user; "
            "empty: asked of the running nginx, else everybody"
        ),
    ] = ""
    nginx_test_seconds: Annotated[
        float, Meta(gt=0, le=3600, description="longest time that nginx -t may take")
    ] = 30
    min_reload_seconds: Annotated[
        float,
        Meta(
            ge=0, le=86400, description="shortest time between reloads, of which three may follow one another"
        ),
    ] = 2
    reload: Annotated[
        Literal["signal", "process", "command", "none"],
        Meta(
            description="how nginx is told: a HUP by its pid file, a HUP to the only master there is, "
            "reload_command, or not at all"
        ),
    ] = "signal"
    reload_command: Annotated[
        tuple[str, ...], Meta(description="for reload = command, e.g. systemctl reload nginx")
    ] = ()
    confirm: Annotated[
        str,
        Meta(
            description="how a reload is proven: auto, process (the process table), none, or the site's URL"
        ),
    ] = "auto"
    confirm_host: Annotated[str, Meta(description="Host header for confirm = URL")] = ""
    confirm_ca_file: Annotated[str, Meta(description="CA certificates for confirm = URL")] = ""
    confirm_credentials_file: Annotated[
        str, Meta(description="a file with user:password for confirm = URL")
    ] = ""
    confirm_seconds: Annotated[
        float, Meta(gt=0, le=3600, description="longest time to wait for the proof of a reload")
    ] = 15

    log_format: Annotated[
        Literal["auto", "text", "json"], Meta(description="of the lines on standard error")
    ] = "auto"


NAMES = tuple(Settings.__struct_fields__)
OF_ENVIRONMENT = ("config", "listen")
"""What else has a variable: the settings file, and ``serve --listen``."""


def load(
    flags: Mapping[str, str],
    environment: Mapping[str, str] = os.environ,
    *,
    file: Path | None = None,
) -> tuple[Settings, dict[str, str]]:
    """The settings, and for each where its value comes from: flag > environment > file > default.

    ``file`` must exist; without it the default file is read if it does. Raises
    ``ConfigurationError`` naming the source and the setting at fault.
    """
    values: dict[str, Any] = {}
    origins = dict.fromkeys(NAMES, "default")
    path = file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if path is not None:
        layers.append((str(path), _read(path)))
    layers.append(("environment", _from_environment(environment)))
    layers.append(("flag", flags))
    for origin, layer in layers:
        for name, value in layer.items():
            if name not in NAMES:
                raise _unknown(name, origin)
            values[name] = _convert(name, value, origin)
            origins[name] = f"{_ENVIRONMENT}{name.upper()}" if origin == "environment" else origin
    settings = Settings(**values)
    _check(settings, origins)
    _check_mirrors(settings, origins)
    return settings, origins


def can_be_included(path: str) -> bool:
    """Whether nginx can be told ``path``: it has no escape for ``$``, and takes others for a glob."""
    return not set(path) & set("*?[]$'\"\\\n")


def describe(name: str) -> str:
    """What the setting is for, in one clause."""
    for each in _metas(name):
        if each.description:
            return each.description
    raise KeyError(name)


def choices(name: str) -> tuple[str, ...]:
    """The words that the setting takes, if it takes only certain words."""
    kind = _kind(name)
    if kind is bool:
        return ("on", "off")
    return tuple(get_args(kind)) if get_origin(kind) is Literal else ()


def show(settings: Settings, origins: Mapping[str, str]) -> str:
    """The settings as a TOML file, each with its origin."""
    return "\n".join(f"{name} = {_toml(getattr(settings, name))}  # {origins[name]}" for name in NAMES)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(each)}' for key, each in value.items())}}}"
    return msgspec.json.encode(str(value) if isinstance(value, Path) else value).decode()


# As clients write it in ?ns=: a name or an address, with a port if it is not the usual one.
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")

# ASCII, which is all that clients agree on in a header, and no $, for which nginx has no escape. Quoted
# twice it is still one token, and within the specification's bound of 4,096 bytes.
_WARNING = re.compile(r"[ -#%-~]{0,1000}")

_HINTS = get_type_hints(Settings, include_extras=True)


def _metas(name: str) -> list[Meta]:
    return [each for each in getattr(_HINTS[name], "__metadata__", ()) if isinstance(each, Meta)]


def _kind(name: str) -> Any:
    return get_args(_HINTS[name])[0]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint="see --config") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        key.removeprefix(_ENVIRONMENT).lower(): value
        for key, value in environment.items()
        if key.startswith(_ENVIRONMENT)
    }


def _convert(name: str, value: Any, origin: str) -> Any:
    kind = _kind(name)
    if isinstance(value, str):
        if kind is bool and value in ("on", "off"):
            value = value == "on"
        elif get_origin(kind) is tuple:
            value = value.split()
        elif get_origin(kind) is dict:
            value = _pairs(name, value, origin)
    try:
        return msgspec.convert(
            value, _HINTS[name], strict=not isinstance(value, str), dec_hook=lambda kind, raw: kind(raw)
        )
    except (msgspec.ValidationError, TypeError) as error:
        words = choices(name)
        hint = f"it takes one of: {', '.join(words)}" if words else describe(name)
        raise ConfigurationError(f"{name} (from {origin}) cannot be {value!a}: {error}", hint=hint) from error


def _pairs(name: str, text: str, origin: str) -> dict[str, str]:
    """``HOST=PREFIX HOST=PREFIX …``"""
    pairs = [each.partition("=") for each in text.split()]
    if not all(separator for _, separator, _ in pairs):
        raise ConfigurationError(f"{name} (from {origin}) cannot be {text!a}", hint=describe(name))
    return {key: value for key, _, value in pairs}


def _unknown(name: str, origin: str) -> ConfigurationError:
    shown, known = name, NAMES
    if origin == "environment":
        shown = f"{_ENVIRONMENT}{name.upper()}"
        known = tuple(f"{_ENVIRONMENT}{each.upper()}" for each in (*NAMES, *OF_ENVIRONMENT))
    return ConfigurationError(
        f"there is no setting {shown} (from {origin})",
        hint=did_you_mean(shown, known, "scr-watchd run --help has all of them"),
    )


def _check(settings: Settings, origins: Mapping[str, str]) -> None:
    for name in ("root", "state"):
        if not getattr(settings, name).is_absolute():
            raise ConfigurationError(
                f"{name} (from {origins[name]}) must be an absolute path, not {getattr(settings, name)}"
            )
    for name in (
        "server_root",
        "tls_cert",
        "tls_key",
        "htpasswd",
        "nginx_config",
        "nginx_pid_file",
        "confirm_ca_file",
        "confirm_credentials_file",
    ):
        value = getattr(settings, name)
        if value and not value.startswith("/"):
            raise ConfigurationError(f"{name} (from {origins[name]}) must be an absolute path, not {value}")
    if settings.store != "auto" and not settings.store.startswith("/"):
        raise ConfigurationError(f"store must be auto or an absolute path, not {settings.store}")
    for name in ("state", "store", "server_root", "htpasswd"):
        if not can_be_included(str(getattr(settings, name))):
            raise ConfigurationError(
                f"{name} (from {origins[name]}) has a character that nginx cannot include: "
                f"{getattr(settings, name)!a}",
                hint="choose a path without * ? [ ] $ \\ and quotes",
            )
    if not _WARNING.fullmatch(settings.warning):
        raise ConfigurationError(
            f"warning (from {origins['warning']}) cannot be {settings.warning!a}",
            hint="it is one line of at most 1,000 ASCII characters, without $",
        )
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise ConfigurationError(
            "tls_cert and tls_key need each other", hint="HTTPS takes both; HTTP neither"
        )
    if settings.confirm not in ("auto", "process", "none") and not settings.confirm.startswith(
        ("http://", "https://")
    ):
        raise ConfigurationError(f"confirm cannot be {settings.confirm}: it is auto, process, none or a URL")
    if settings.reload == "command" and not settings.reload_command:
        raise ConfigurationError(
            "reload is command, and there is no reload_command",
            hint='for example reload_command = ["systemctl", "reload", "nginx"]',
        )


def _check_mirrors(settings: Settings, origins: Mapping[str, str]) -> None:
    for host, prefix in settings.mirrors.items():
        if host == "*":
            if prefix != "*" and not prefix.endswith("/*"):
                raise ConfigurationError(
                    f"mirrors (from {origins['mirrors']}) has {prefix!a} for every host",
                    hint='the host must be a part of it: "*" = "*", or "*" = "mirror/*"',
                )
        elif not _HOST.fullmatch(host):
            raise ConfigurationError(
                f"mirrors (from {origins['mirrors']}) has {host!a}, which is no host",
                hint='as in [mirrors] "docker.io" = "docker.io", without https:// and without a path',
            )
    if len({host.lower() for host in settings.mirrors}) < len(settings.mirrors):
        raise ConfigurationError(f"mirrors (from {origins['mirrors']}) has one host twice")
