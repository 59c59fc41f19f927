#!/bin/sh
# Builds what installs scr-watchd on machines without network, into dist/:
#
#     sh systemd/package/build.sh deb          scr-watchd_VERSION_ARCHITECTURE.deb, for Debian and its kin
#     sh systemd/package/build.sh rpm          scr-watchd-VERSION-1.pythonX.Y.ARCHITECTURE.rpm, for Fedora, RHEL, SUSE
#     sh systemd/package/build.sh wheelhouse   scr-watchd-VERSION-pythonX.Y-ARCHITECTURE.tar.gz, for any Linux
#
# It needs network, and Python with venv; rpm needs rpmbuild. Each is for the architecture of this machine and the X.Y
# of the Python that builds it (another one: PYTHON=python3.12 sh ..., or without having it FOR=3.12 sh ...), because
# msgspec is compiled; both packages say so in what they require.
# The Python packages are those of constraints.txt. The same commit gives the same bytes, dated SOURCE_DATE_EPOCH,
# which is the time of the commit if it is not set.
set -eu
umask 022
export LC_ALL=C
what=${1:-}
house=$(cd "$(dirname "$0")/../.." && pwd)
here=$house/systemd/package
dist=${2:-$house/dist}
python=${PYTHON:-python3}

case $what in
    deb | rpm | wheelhouse) ;;
    *)
        sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac

made=$(git -C "$house" log -1 --format=%ct 2>/dev/null || stat -c %Y "$house/CHANGELOG.md")
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$made}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$dist" "$work/wheels"

# -- the wheels --------------------------------------------------------------------------------------

"$python" -m venv "$work/venv"
"$work/venv/bin/pip" wheel --quiet --disable-pip-version-check --constraint "$here/constraints.txt" \
    --wheel-dir "$work/wheels" "$house"
version=$("$work/venv/bin/python" -c 'import sys; print(sys.argv[1].split("-")[1])' \
    "$(basename "$work"/wheels/scr_watchd-*.whl)")
python_version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-index --find-links "$work/wheels" scr-watchd

# what is compiled for the Python here, for that of FOR
if [ "${FOR:-$python_version}" != "$python_version" ]; then
    for each in "$work"/wheels/*-cp*-cp*-*.whl; do
        name=$(basename "$each" | cut -d- -f1,2 | sed 's/-/==/')
        rm "$each"
        "$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
            --python-version "$FOR" --platform "manylinux_2_28_$(uname -m)" --platform "manylinux_2_17_$(uname -m)" \
            --platform "manylinux2014_$(uname -m)" --dest "$work/wheels" "$name"
    done
    python_version=$FOR
fi

# what lies below $1, with the modes and the time that everything has
settle() {
    find "$1" -type d -exec chmod 755 {} +
    find "$1" -type f ! -perm -u+x -exec chmod 644 {} +
    find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

if [ "$what" = wheelhouse ]; then
    name=scr-watchd-$version-python$python_version-$(uname -m)
    mkdir "$work/$name"
    mv "$work/wheels" "$work/$name/wheels"
    cp -r "$house/README.md" "$house/SECURITY.md" "$house/docs" "$house/LICENSE" "$house/config" "$house/systemd" "$work/$name/"
    rm -rf "$work/$name/systemd/package"
    settle "$work/$name"
    tar --create --directory "$work" --sort=name --owner=0 --group=0 --numeric-owner --format=ustar "$name" |
        gzip --best --no-name > "$dist/$name.tar.gz"
    printf '%s\n' "$dist/$name.tar.gz"
    exit
fi

# -- the tree of both packages -----------------------------------------------------------------------

root=$work/root
lib=$root/usr/lib/scr-watchd
doc=$root/usr/share/doc/scr-watchd
zsh=$root/usr/share/zsh/vendor-completions
[ "$what" = deb ] || zsh=$root/usr/share/zsh/site-functions
mkdir -p "$lib" "$doc/examples" "$root/etc/scr-watchd" "$root/usr/bin" "$zsh" \
    "$root/usr/lib/systemd/system" "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d" "$root/usr/share/man/man1" \
    "$root/usr/share/bash-completion/completions" "$root/usr/share/fish/vendor_completions.d"

for each in "$work"/wheels/*.whl; do
    "$python" -m zipfile -e "$each" "$lib"
done
rm -rf "$lib"/*.data # other programs of these packages
find "$lib" -name '*.so' -exec chmod 644 {} +

cp "$here/scr-watchd" "$root/usr/bin/scr-watchd"
chmod 755 "$root/usr/bin/scr-watchd"
cp "$house/systemd/scr-watchd.service" "$root/usr/lib/systemd/system/"
cp "$house/systemd/scr-watchd.sysusers.conf" "$root/usr/lib/sysusers.d/scr-watchd.conf"
cp "$house/systemd/scr-watchd.tmpfiles.conf" "$root/usr/lib/tmpfiles.d/scr-watchd.conf"
cp "$house/config/scr-watchd.toml" "$root/etc/scr-watchd/config.toml"
cp -r "$house/config/." "$house/systemd/notify-reload.conf" "$doc/examples/"
rm "$doc/examples/scr-watchd.toml" # it is in /etc
cp -r "$house/README.md" "$house/SECURITY.md" "$house/docs" "$here/copyright" "$doc/"

made() { "$work/venv/bin/python" -P -m scr_watchd "$@"; }
made manual | gzip --best --no-name > "$root/usr/share/man/man1/scr-watchd.1.gz"
made completion bash > "$root/usr/share/bash-completion/completions/scr-watchd"
made completion zsh > "$zsh/_scr-watchd"
made completion fish > "$root/usr/share/fish/vendor_completions.d/scr-watchd.fish"

gzip --best --no-name < "$house/CHANGELOG.md" > "$doc/changelog.gz"
glibc=$(basename -a "$work"/wheels/*.whl | sed -n 's/.*manylinux_2_\([0-9]*\)_.*/\1/p' | sort -n | tail -1)

if [ "$what" = rpm ]; then
    # not every system's python3 is that one
    sed -i "1s|python3|python$python_version|" "$root/usr/bin/scr-watchd"
    settle "$root"
    rpmbuild -bb --quiet --target "$(uname -m)" --define "_topdir $work/rpm" --define "_rpmdir $work/rpm" \
        --define "tree $root" --define "python $python_version" --define "glibc ${glibc:-17}" \
        --define "upstream $(printf %s "$version" | sed 's/\(\.dev\|a\|b\|rc\)/~\1/')" \
        --define "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" "$here/scr-watchd.spec" >&2
    mv "$work"/rpm/*.rpm "$dist/"
    printf '%s\n' "$dist/scr-watchd-"*".python$python_version.$(uname -m).rpm"
    exit
fi

# -- what dpkg wants to know --------------------------------------------------------------------------

mkdir -p "$root/DEBIAN" "$root/usr/share/lintian/overrides"
cp "$here/lintian-overrides" "$root/usr/share/lintian/overrides/scr-watchd"
maintainer="${DEBFULLNAME:-scr-watchd packagers} <${DEBEMAIL:-root@localhost}>"
revision=$(printf %s "$version" | sed 's/\(\.dev\|a\|b\|rc\)/~\1/')-1
gzip --best --no-name > "$doc/changelog.Debian.gz" <<END
scr-watchd ($revision) unstable; urgency=medium

  * Built from the sources of this version; see changelog.gz.

 -- $maintainer  $(date --utc --date="@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')
END
for each in postinst prerm postrm; do
    cp "$here/$each" "$root/DEBIAN/$each"
    chmod 755 "$root/DEBIAN/$each"
done
echo /etc/scr-watchd/config.toml > "$root/DEBIAN/conffiles"
next=${python_version%.*}.$((${python_version#*.} + 1))
size=$(find "$root" -path "$root/DEBIAN" -prune -o -type f -printf '%s\n' | awk '{ n += int($1 / 1024) + 1 } END { print n }')
cat > "$root/DEBIAN/control" <<END
Package: scr-watchd
Version: $revision
Architecture: $(dpkg --print-architecture)
Maintainer: $maintainer
Installed-Size: $size
Depends: python3 (>= $python_version~), python3 (<< $next), libc6 (>= 2.${glibc:-17}), systemd
Recommends: nginx
Suggests: skopeo
Section: web
Priority: optional
Description: read-only container registry without a registry process
 Drop a container image into a directory, as "skopeo copy" leaves it, and nginx
 serves it: "docker pull" works. scr-watchd watches the directory, has nginx
 test every change before it goes live, reloads it, and checks that the
 reload took effect. Nothing of it is in the path of a request.
 .
 The Python packages that it needs come with it.
END
settle "$root"
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
touch --date="@$SOURCE_DATE_EPOCH" "$root/DEBIAN/md5sums" "$root/DEBIAN"
deb=$dist/scr-watchd_${revision}_$(dpkg --print-architecture).deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$deb" > /dev/null
printf '%s\n' "$deb"
