#!/bin/sh
# What people run today: wait for a manifest, write nginx's file anew, reload.
#
#     sh loop.sh IMAGES INCLUDED_FILE GENERATOR NGINX...
set -eu
images=$1 included=$2 generator=$3
shift 3
inotifywait --quiet --monitor --recursive --event close_write --event moved_to --format '%f' "$images" |
while read -r file; do
    [ "$file" = manifest.json ] || continue
    $generator "$images" > "$included.new"
    mv "$included.new" "$included"
    "$@" -s reload
done
