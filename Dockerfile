# CPU by default. For CUDA: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
FROM python:3.11-slim

ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# hadolint ignore=DL3013
RUN pip install --no-cache-dir "$TORCH" --index-url "$TORCH_INDEX"

# KubeRay's health checks call wget in the container
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --home-dir /workspace --uid 1000 stabletune

WORKDIR /opt/stabletune
COPY pyproject.toml README.md LICENSE ./
COPY search_spaces search_spaces
COPY stabletune stabletune
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[cluster]"

COPY examples examples
USER 1000:1000
WORKDIR /workspace
ENV RAY_USAGE_STATS_ENABLED=0
HEALTHCHECK --interval=1m --timeout=20s --start-period=10s CMD ["stabletune", "list", "formats"]
ENTRYPOINT ["stabletune"]
CMD ["--help"]
