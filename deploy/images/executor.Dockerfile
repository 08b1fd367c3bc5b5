# The executor: ranks that hold a model. See README.md beside it.
# BASE: as of the planner. torch brings its CUDA; of NVIDIA's base only the settings are needed.
ARG BASE=docker.io/nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${BASE} AS python
# The time that tools write into what they make: the same in every build.
ARG SOURCE_DATE_EPOCH=1577836800
# The compiler is for --compile. The base says which versions of Debian's packages there are.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates g++ python3 python3-dev \
    && apt-get clean \
    && groupadd --gid 10001 ditplan \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --no-log-init \
        --shell /usr/sbin/nologin ditplan \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /etc/*-

FROM python AS build
# cuda or cpu: which build of torch.
ARG VARIANT=cuda
WORKDIR /build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
COPY deploy/images/build.lock deploy/images/executor-${VARIANT}.lock ./
# Settings of pip, and an authority to trust, where a site needs them; neither stays.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    /usr/bin/python3 -m venv tools \
    && tools/bin/pip install --no-cache-dir --require-hashes --requirement build.lock \
    && /usr/bin/python3 -m venv --without-pip /opt/ditplan \
    && tools/bin/pip --python /opt/ditplan/bin/python install --no-cache-dir --no-compile \
        --require-hashes --requirement executor-${VARIANT}.lock
COPY LICENSE README.md pyproject.toml ./
COPY planner planner
COPY executor executor
COPY proto proto
# Compiled now, for the root will be read-only; by hash, so that the code tells no time.
# torch's own tests hold syntax of other Pythons.
RUN tools/bin/pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation \
        --wheel-dir wheels . \
    && tools/bin/pip --python /opt/ditplan/bin/python install --no-cache-dir --no-compile \
        --no-deps --no-index wheels/*.whl \
    && /opt/ditplan/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
        -x torch/testing/_internal /opt/ditplan

FROM python
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ditplan executor" \
    org.opencontainers.image.description="Runs diffusion transformers step by step as the planner's plans say" \
    org.opencontainers.image.source="https://github.com/ditplan/ditplan" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/ditplan /opt/ditplan
ENV PATH=/opt/ditplan/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/tmp/hf \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor \
    TRITON_CACHE_DIR=/tmp/triton
WORKDIR /tmp
USER 10001:10001
EXPOSE 7340
ENTRYPOINT ["ditplan"]
CMD ["serve", "executor", "--help"]
