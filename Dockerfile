# The images of OCRFineTune: `operator` (no Paddle), `trainer` (CPU) and `trainer-gpu`.
#
#   make images                                   builds operator and trainer with docker, podman or buildah
#   make image-trainer-gpu PADDLE_GPU_INDEX=…     needs the address of Paddle's package index for your CUDA version
#
# Build arguments
#   BASE_IMAGE        a Debian 12 with apt; pin it by digest for builds that must be equal byte by byte
#   PIP_INDEX_URL     a mirror of the Python package index
#   PADDLE_GPU_INDEX  Paddle's own package index for one CUDA version (trainer-gpu only)
#   VERSION, REVISION what the labels say
ARG BASE_IMAGE=debian:bookworm-slim

# ---- build: has pip and never ships ---------------------------------------------------------------------------------
FROM ${BASE_IMAGE} AS build
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore SOURCE_DATE_EPOCH=1767225600 PYTHONHASHSEED=0
RUN apt-get update \
 && apt-get install --yes --no-install-recommends binutils ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
ARG PIP_INDEX_URL
# pip lives in one environment and fills another, so that the shipped one has no installer.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/ocrft
WORKDIR /source
# Versions and hashes come from the lock files alone (--no-deps); wheels only, so no compiler is ever needed.
ENV INSTALL="/opt/pip/bin/pip --python /opt/ocrft/bin/python install --no-deps --no-compile --only-binary :all:"

# ---- our own code, as a wheel ---------------------------------------------------------------------------------------
FROM build AS code
COPY requirements/build.txt requirements/
RUN /opt/pip/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY operator operator
COPY trainer trainer
RUN /opt/pip/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# ---- dependencies ---------------------------------------------------------------------------------------------------
FROM build AS operator-dependencies
COPY requirements/operator.txt requirements/
RUN ${INSTALL} --require-hashes -r requirements/operator.txt
COPY images images
# The client library is 75 MB of generated classes: their docstrings are dropped.
RUN HOME=/tmp /opt/ocrft/bin/python images/slim.py \
      --without-source 'kubernetes/client/[am]*' --without-source 'kubernetes/aio/client/[am]*' -- \
      kopf kubernetes.aio kubernetes.dynamic aiohttp.web prometheus_client pydantic yaml typer rich.console

FROM build AS trainer-libraries
# OpenCV is linked against libGL, which nothing here calls. Debian's package brings drivers and a compiler back end of
# 180 MB along; the loader alone is enough.
RUN apt-get update && mkdir /libraries && cd /tmp \
 && apt-get download libgl1 libglx0 libglvnd0 libx11-6 libxcb1 libxau6 libxdmcp6 libbsd0 libmd0 \
 && for package in ./*.deb; do dpkg-deb --extract "$package" /libraries; done \
 && rm -rf /libraries/usr/share /var/lib/apt/lists/* ./*.deb

FROM build AS trainer-build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libglib2.0-0 libgomp1 \
 && rm -rf /var/lib/apt/lists/*
# What training, evaluation and export load.
ENV SERVING_MODULES="paddleocr onnx onnxruntime onnxruntime.quantization paddle2onnx pyarrow.ipc cv2 shapely pyclipper \
      rapidfuzz jinja2 typer rich.progress pydantic yaml fsspec requests psutil prometheus_client PIL.Image"
ENV TRAINER_MODULES="paddle paddle.distributed.launch.main paddle.inference safetensors.numpy ${SERVING_MODULES}"

FROM trainer-build AS trainer-dependencies
COPY requirements/trainer.txt requirements/
RUN ${INSTALL} --require-hashes -r requirements/trainer.txt
COPY images images
COPY --from=trainer-libraries /libraries /
RUN HOME=/tmp /opt/ocrft/bin/python images/slim.py --prune images/prune.txt -- ${TRAINER_MODULES}

FROM trainer-build AS trainer-gpu-dependencies
COPY requirements/trainer.txt requirements/trainer-gpu.txt requirements/
# The locked packages without the CPU's Paddle, then the GPU's with the CUDA and NCCL libraries that it asks for.
RUN awk '/^[^ ]/ { skip = /^paddlepaddle==/ } !skip' requirements/trainer.txt > requirements/without-paddle.txt \
 && ${INSTALL} --require-hashes -r requirements/without-paddle.txt
ARG PADDLE_GPU_INDEX
# The constraints are versions alone: with one hash among them pip asks for the hash of everything.
RUN if [ -z "${PADDLE_GPU_INDEX}" ]; then \
      echo "set the build argument PADDLE_GPU_INDEX to Paddle's package index for your CUDA version" >&2; exit 64; \
    fi \
 && sed -n '/^[^ #]/ { s/ *\\$//; s/\[[^]]*\]//; p }' requirements/without-paddle.txt > requirements/versions.txt \
 && /opt/pip/bin/pip --python /opt/ocrft/bin/python install --only-binary :all: \
      --constraint requirements/versions.txt --extra-index-url "${PADDLE_GPU_INDEX}" \
      -r requirements/trainer-gpu.txt
COPY images images
COPY --from=trainer-libraries /libraries /
# Importing Paddle for GPUs needs a driver, so its byte code is made without; its package has other libraries than the CPU's.
RUN grep -v '^paddle/libs/' images/prune.txt > images/prune-gpu.txt \
 && HOME=/tmp /opt/ocrft/bin/python images/slim.py --prune images/prune-gpu.txt -- ${SERVING_MODULES} \
 && /opt/ocrft/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/ocrft/lib/python3*/site-packages/paddle

# ---- what all images share ------------------------------------------------------------------------------------------
FROM ${BASE_IMAGE} AS rootfs
ENV DEBIAN_FRONTEND=noninteractive
# What nobody in a container calls goes: the package manager, Perl, character set modules, file system tools. The list
# of packages stays, so that scanners see what is in the image.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libglib2.0-0 libgomp1 python3 tini \
 && mkdir /keep && cp /usr/sbin/ldconfig /usr/sbin/nologin /keep \
 && rm -rf /var/lib/apt /var/lib/dpkg/info /var/cache/* /var/log/* /var/backups/* /etc/apt /usr/lib/apt /usr/bin/apt* \
      /usr/share/doc /usr/share/man /usr/share/locale /usr/share/info /usr/share/perl* /usr/share/bash-completion \
      /usr/bin/perl* /usr/lib/x86_64-linux-gnu/perl* /usr/lib/x86_64-linux-gnu/gconv /usr/lib/udev /usr/lib/valgrind \
      /usr/lib/python3*/pydoc_data /usr/lib/python3*/lib2to3 /usr/lib/python3*/test /usr/lib/x86_64-linux-gnu/libapt* \
      /usr/bin/dpkg* /usr/bin/gpgv /usr/bin/localedef /usr/bin/openssl /usr/bin/tini-static /usr/sbin/* \
 && mv /keep/* /usr/sbin && rmdir /keep

FROM scratch AS runtime
# One layer, shared by all images.
COPY --from=rootfs / /
# Any user id works (nothing belongs to one), and the root file system may be read-only: what is written goes to /tmp.
ENV PATH=/opt/ocrft/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp XDG_CACHE_HOME=/tmp/.cache USER=ocrft LOGNAME=ocrft PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 65532:0
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="OCRFineTune" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENTRYPOINT ["/usr/bin/tini", "--"]

FROM runtime AS trainer-runtime
LABEL org.opencontainers.image.description="Prepares, trains, evaluates and exports PaddleOCR models"
COPY --from=trainer-libraries /libraries /
ENV PADDLE_PDX_CACHE_HOME=/tmp/.paddlex PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK=True
CMD ["ocrft", "--help"]

# ---- the images -----------------------------------------------------------------------------------------------------
FROM build AS operator-code
COPY --from=code /wheels /wheels
RUN ${INSTALL} /wheels/*.whl \
 && rm -rf /opt/ocrft/lib/python3*/site-packages/ocr_finetune_trainer /opt/ocrft/bin/ocrft \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/ocrft/lib

FROM build AS trainer-code
COPY --from=code /wheels /wheels
RUN ${INSTALL} /wheels/*.whl \
 && rm -rf /opt/ocrft/lib/python3*/site-packages/ocr_finetune_operator \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/ocrft/lib

FROM runtime AS operator
LABEL org.opencontainers.image.description="Runs OCRFineTune resources on Kubernetes"
COPY --from=operator-dependencies /opt/ocrft /opt/ocrft
COPY --from=operator-code /opt/ocrft/lib /opt/ocrft/lib
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s CMD ["python", "-c", \
  "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
CMD ["python", "-m", "ocr_finetune_operator"]

FROM trainer-runtime AS trainer-gpu
COPY --from=trainer-gpu-dependencies /opt/ocrft /opt/ocrft
COPY --from=trainer-code /opt/ocrft /opt/ocrft

# The last target is what a plain `docker build .` makes.
FROM trainer-runtime AS trainer
COPY --from=trainer-dependencies /opt/ocrft /opt/ocrft
COPY --from=trainer-code /opt/ocrft /opt/ocrft
