# scr-watchd in a container. docs/containers.md has the lines to run it with.
#
#     docker build -t scr-watchd .                              with an nginx of its own
#     docker build -t scr-watchd:sidecar --target sidecar .     beside a container with nginx
ARG BASE=debian:12-slim

# -- the package and what it depends on, in a directory that is copied whole ------------------------
FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY scr_watchd scr_watchd
# --break-system-packages: the system is this image's alone
RUN pip install --no-cache-dir --break-system-packages --root-user-action=ignore --root=/out .

# -- what both images have --------------------------------------------------------------------------
FROM ${BASE} AS common
# The directories are for any user: a container may run as one that no image has heard of.
RUN apt-get update \
    && apt-get install -y --no-install-recommends nginx python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/* \
    && install -d -m 1777 /var/cache/nginx /var/lib/scr-watchd \
    && install -d /var/lib/images /var/lib/scr-watchd/images
COPY --from=build /out/ /
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="scr-watchd" \
      org.opencontainers.image.description="Drop an image into a directory, and stock nginx serves it" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
STOPSIGNAL SIGTERM
# 3 says that something in the tree is not served, and 75 that the first look is not over, which is no reason
# to restart a container; 4 that the daemon does not run, or hangs; 5 that nginx does not run.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD scr-watchd status >/dev/null; case $? in 0|3|75) ;; *) exit 1 ;; esac
ENTRYPOINT ["scr-watchd"]

# -- beside an nginx that runs in another container: its program is here to test what we write -------
FROM common AS sidecar
# nginx's configuration lies in the other container; what is not here is not tested
RUN rm -r /etc/nginx
ENV SCR_WATCHD_RELOAD=process
# nginx is another container's, and to start this one again would not start it
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD scr-watchd status >/dev/null; case $? in 0|3|5|75) ;; *) exit 1 ;; esac
CMD ["run"]

# -- with an nginx of its own, the default ----------------------------------------------------------
FROM common
# Where the images cannot be written, the state lies in the first of these that can.
ENV SCR_WATCHD_ROOT=/var/lib/images \
    SCR_WATCHD_LISTEN=0.0.0.0:80 \
    XDG_RUNTIME_DIR=/run \
    TMPDIR=/var/cache/nginx
EXPOSE 80
CMD ["serve"]
