# scr-watchd and an nginx in one container, which serves the images mounted at /var/lib/images:
#
#     docker build -t scr-watchd .
#     docker run -p 127.0.0.1:5000:80 -v "$PWD/images:/var/lib/images" scr-watchd
#
# The images may be mounted read-only; then links to them are symbolic (see README.md, "The store").
ARG BASE=debian:12-slim

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY scr_watchd scr_watchd
RUN python3 -m venv /opt/scr-watchd \
    && /opt/scr-watchd/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && /opt/scr-watchd/bin/pip install --no-cache-dir /wheels/*.whl

FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends nginx-light python3 \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /var/lib/images
COPY --from=build /opt/scr-watchd /opt/scr-watchd
# A state directory of its own, so that `scr-watchd status` finds it, and images may be read-only.
ENV PATH=/opt/scr-watchd/bin:$PATH \
    SCR_WATCHD_STATE=/var/lib/scr-watchd
EXPOSE 80
STOPSIGNAL SIGTERM
# 3 says that something in the tree is not served, which is no reason to restart a container
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD scr-watchd status >/dev/null || [ $? -eq 3 ]
ENTRYPOINT ["scr-watchd"]
CMD ["serve", "/var/lib/images", "--listen", "0.0.0.0:80"]
