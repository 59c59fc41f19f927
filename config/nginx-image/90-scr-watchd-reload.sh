#!/bin/sh
# For nginx's own container images: reloads nginx when scr-watchd has published something.
#
# Mount this file, executable, into /docker-entrypoint.d/ of the nginx container, and scr-watchd's
# state directory at the same path as in scr-watchd's container. There reload is "none", and confirm
# is a URL of this nginx. (nginx's entrypoint runs this once, and then becomes nginx.)
#
#   SCR_WATCHD_CURRENT   the link to watch   /var/lib/scr-watchd/nginx/current
#   SCR_WATCHD_SECONDS   between two looks   1

current=${SCR_WATCHD_CURRENT:-/var/lib/scr-watchd/nginx/current}
seconds=${SCR_WATCHD_SECONDS:-1}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

watch() {
    while sleep "$seconds"; do
        pause=$((pause - 1))
        [ "$pause" -le 0 ] || continue
        now=$(readlink "$current") || continue
        [ "$now" != "$served" ] || continue
        if ! words=$(nginx -t -q 2>&1); then
            [ "$words" = "$said" ] || say "nginx refuses its configuration with $now, so what it has read before stays: $words"
            said=$words
            pause=10   # somebody has to mend it first
        # without an nginx there is nothing to tell; what starts later reads what is current then
        elif nginx -s reload 2>/dev/null; then
            served=$now
            said=
        fi
    done
}

# nginx reads what is current now, or something newer, when it starts after this
served=$(readlink "$current") || served=
said=
pause=0
watch </dev/null &
