#!/bin/sh
# Installs what the tests need, and nothing that is there already. Run it again as often as you like.
#
#     sh tests/setup.sh && .venv/bin/python -m pytest
#     sh tests/setup.sh --light      only .venv, no programs: enough for pytest -m 'not slow'
#
# 1. programs: nginx, skopeo, buildah, busybox, openssl, jq, umoci, docker, containerd and podman; for the
#    tests of the container images docker-compose, debootstrap, iptables and curl; for those of the
#    packages systemd, man, lintian, rpm and shells; a C compiler for failing calls; for the recipes rsync, logrotate and bindfs; xfsprogs; for the
#    benchmarks wrk, docker-registry and inotify-tools; for the page chromium and its driver; by apt-get as
#    root or with sudo; without root, or without apt-get, it says which are missing and goes on
# 2. .venv with scr-watchd in editable form, what its tests import, and promtool out of Debian's prometheus
#
# On Debian the packages of nginx, docker, containerd and docker-registry start these as services, nginx
# on port 80, docker-registry on 5000. The tests neither need nor touch them.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin   # nginx lies there, and a user's PATH does not name it
PYTHON=${PYTHON:-python3}
light=
case ${1:-} in
    --light) light=yes ;;
    '') ;;
    *) sed -n '2,16s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

say() { printf 'tests/setup.sh: %s\n' "$*" >&2; }

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "Python 3.11 or newer is needed; name another one: PYTHON=python3.12 sh tests/setup.sh"
    exit 1
}

# -- which packages are missing ------------------------------------------------------------------

packages=
need() { command -v "$1" >/dev/null || packages="$packages $2"; }
need nginx nginx-light
need skopeo skopeo
need buildah buildah
need busybox busybox-static   # the content of the images that the tests build
need openssl openssl
need jq jq                    # in commands that Problems name
need umoci umoci              # writes OCI layouts in its own way
need dockerd docker.io        # the clients that images are pulled with; the tests start engines of their own
need ctr containerd
need podman podman
need docker-compose docker-compose
need debootstrap debootstrap
need iptables iptables
need curl curl
need rsync rsync
need cc "gcc libc6-dev"        # for the library that makes system calls fail
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs         # a file system where links end at projects, too
need bindfs bindfs             # a file system without events, in the place of NFS
need /usr/bin/python3 python3   # what the Debian package runs with
need /lib/systemd/systemd systemd
need man man-db                # and with it groff
need zsh zsh
need fish fish
need lintian lintian
need rpmbuild rpm              # and installs what it built
need zstd zstd                 # compresses layers
need wrk wrk                   # what the benchmarks measure with, and what they compare with
need inotifywait inotify-tools
need patchelf patchelf         # runs the nginx of another Debian
need docker-registry docker-registry
need chromium chromium         # looks at the page
need chromedriver chromium-driver
/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
# Debian's own Python has venv in a package of its own
[ -x .venv/bin/pip ] || "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"

# -- programs ------------------------------------------------------------------------------------

if [ -n "$packages" ] && [ -z "$light" ]; then
    if [ "$(id -u)" = 0 ]; then as_root=; else as_root=sudo; fi
    if ! command -v apt-get >/dev/null; then
        say "there is no apt-get; install what these Debian packages hold:$packages"
    elif [ -n "$as_root" ] && ! command -v sudo >/dev/null; then
        say "missing, and only root can install them: apt-get install --no-install-recommends$packages"
    else
        say "apt-get will install:$packages"
        for each in nginx-light:80 docker-registry:5000 docker.io containerd; do
            case " $packages " in
                *" ${each%:*} "*) say "Debian starts ${each%:*} as a service${each#"${each%:*}"}; --light leaves all of this out" ;;
            esac
        done
        $as_root apt-get update
        # shellcheck disable=SC2086  # a list of words
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages
    fi
fi

# -- the virtual environment ---------------------------------------------------------------------

# a .venv without pip is one whose making failed half way
[ -x .venv/bin/pip ] || "$PYTHON" -m venv --clear .venv
.venv/bin/pip install --quiet -e '.[test,nginx]'

# -- promtool, without the service that it comes with --------------------------------------------

if [ -z "$light" ] && [ ! -x .venv/bin/promtool ] && command -v apt-get >/dev/null; then
    scratch=$(mktemp -d)
    (cd "$scratch" && chmod 755 . && apt-get download --quiet prometheus && dpkg-deb --extract prometheus_*.deb .) ||
        say "the package prometheus cannot be downloaded: what needs promtool is skipped"
    [ ! -e "$scratch/usr/bin/promtool" ] || cp "$scratch/usr/bin/promtool" .venv/bin/
    rm -r "$scratch"
fi
