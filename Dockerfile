# CPU by default. For CUDA: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
FROM python:3.11-slim

ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir "$TORCH" --index-url "$TORCH_INDEX"

WORKDIR /opt/stabletune
COPY pyproject.toml README.md LICENSE ./
COPY search_spaces search_spaces
COPY stabletune stabletune
RUN pip install --no-cache-dir . && useradd --create-home --home-dir /workspace --uid 1000 stabletune

COPY examples examples
USER stabletune
WORKDIR /workspace
HEALTHCHECK --interval=1m --timeout=20s CMD ["stabletune", "list", "formats"]
ENTRYPOINT ["stabletune"]
CMD ["--help"]
