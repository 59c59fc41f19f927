#!/bin/sh
# each script of the directory, in order of its name, and then nginx in our place
set -e
find /docker-entrypoint.d/ -follow -type f -name '*.sh' | sort -V | while read -r script; do
    [ ! -x "$script" ] || "$script"
done
exec "$@"
