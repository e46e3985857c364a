# rssc-geo for batches and clusters: a processor by default, a GPU with a build argument.
#
#   docker build -t rssc-geo .
#   docker build -t rssc-geo:cuda --build-arg TORCH=cu128 .
#   docker run --rm -v "$PWD:/data" rssc-geo batch run scenes -o maps
#
# A Dask cluster of it: examples/cluster.

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY rssc_geo rssc_geo
COPY cli cli
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
# The builds of torch: cpu, or cu126, cu128 … for the GPUs of NVIDIA, whose drivers are the host's.
ARG TORCH=cpu
# rasterio's wheels want the system's libexpat.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/*
# Torch first, and alone: its layer is the largest and changes least.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --index-url "https://download.pytorch.org/whl/${TORCH}" torch
COPY --from=wheel /wheels /wheels
# hadolint ignore=DL3013
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[archive,distributed]" \
    && useradd --create-home --uid 1000 rssc \
    && mkdir /data \
    && chown rssc /data
USER 1000
WORKDIR /data
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["rssc-geo"]
CMD ["--help"]
