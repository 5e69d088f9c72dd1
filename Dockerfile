# Two images. All of agepipe, for the CPU or with --build-arg TORCH=cu130 for NVIDIA GPUs:
#
#     docker build --target train -t agepipe .
#     docker run --rm -v agepipe:/work agepipe agepipe run sample
#
# Page, camera and prediction with a trained model, without torch, MLflow and Prefect:
#
#     docker build --target serve -t agepipe-serve .
#     docker run --rm -p 8000:8000 -v agepipe:/work:ro -e AGEPIPE_WEB_TOKEN agepipe-serve

FROM debian:trixie-slim AS base
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --create-home agepipe \
 && install --directory --owner=agepipe --group=agepipe /work
ENV PATH=/opt/agepipe/bin:$PATH PYTHONUNBUFFERED=1

FROM base AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/uv \
 && /opt/uv/bin/pip install --no-cache-dir "uv>=0.9,<1"
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY agepipe agepipe
COPY tasks tasks
COPY flows flows
ENV UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/agepipe
# A container has no screen, and OpenCV without windows needs no graphics library of the system.
RUN /opt/uv/bin/uv venv --python /usr/bin/python3 /opt/agepipe \
 && echo "opencv-python; sys_platform == 'never'" > /opt/overrides.txt \
 && /opt/uv/bin/uv pip install "opencv-python-headless>=4.14,<5"
ENV UV_OVERRIDE=/opt/overrides.txt

FROM build AS build-serve
RUN /opt/uv/bin/uv pip install ".[web]"

FROM build AS build-train
ARG TORCH=cpu
RUN /opt/uv/bin/uv pip install ${TORCH:+--torch-backend $TORCH} \
    ".[train,optuna,dask,distributed,pretrained,s3]"

FROM base AS train
COPY --from=build-train /opt/agepipe /opt/agepipe
USER agepipe
WORKDIR /work
CMD ["agepipe", "run", "sample"]

FROM base AS serve
COPY --from=build-serve /opt/agepipe /opt/agepipe
USER agepipe
WORKDIR /work
EXPOSE 8000
HEALTHCHECK --interval=10s --start-period=30s CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
CMD ["agepipe", "web", "--host", "0.0.0.0"]
