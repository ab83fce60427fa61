# pyfailover with its controller in the foreground, on the host's network:
#
#   docker run --network host --cap-drop ALL \
#     --cap-add BPF --cap-add NET_ADMIN --cap-add NET_RAW --cap-add PERFMON \
#     --security-opt seccomp=deploy/seccomp.json \
#     -v /sys/fs/bpf:/sys/fs/bpf -v /run/pyfailover:/run/pyfailover \
#     -v /etc/pyfailover:/etc/pyfailover:ro pyfailover
#
# The host needs no kernel headers: those inside serve every kernel, for the programs
# use UAPI structures alone. A file of compiled programs would fit one kernel only.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      "linux-headers-$(dpkg --print-architecture)" python3-venv \
 && rm -rf /var/lib/apt/lists/*
# Of the headers only what the compiler of the programs reads.
RUN mkdir /kept \
 && cp -a --parents -t /kept /usr/src/linux-headers-*/include \
      /usr/src/linux-headers-*/arch/*/include /lib/modules/*/{build,source} \
 && rm -rf /kept/usr/src/*/include/dt-bindings
COPY . /src
RUN /usr/bin/python3 -m venv --system-site-packages /opt/pyfailover \
 && /opt/pyfailover/bin/pip install --no-cache-dir /src \
 && /opt/pyfailover/bin/pip uninstall --yes pip setuptools

FROM ${BASE}
LABEL org.opencontainers.image.title="pyfailover" \
      org.opencontainers.image.description="Linux net_failover in eBPF" \
      org.opencontainers.image.licenses="GPL-2.0-or-later AND GPL-2.0-only"
RUN apt-get update \
 && apt-get install -y --no-install-recommends libbpf1 python3-bpfcc \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --no-create-home --shell /usr/sbin/nologin pyfailover
COPY --from=build /kept/usr/src /usr/src
COPY --from=build /kept/lib/modules /usr/lib/modules
COPY --from=build /opt/pyfailover /opt/pyfailover
ENV PATH=/opt/pyfailover/bin:$PATH \
    PYTHONUNBUFFERED=1
# Alive is a controller that answers. That a link is down is for the alerts: no
# restart mends it.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
  CMD ["sh", "-c", "pyfailover status --json | grep -q '\"controller\": true'"]
ENTRYPOINT ["pyfailover"]
CMD ["run", "--metrics", "127.0.0.1:9909"]
