# docker build -f docker/cuda.Dockerfile -t restore-cuda .
# docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/images" restore-cuda denoise photos/
#
# The results belong to you. -v "$HOME/.cache:/home/restore/.cache" keeps the checkpoints that are downloaded.
# PyTorch's own packages bring the CUDA libraries; the machine needs only NVIDIA's driver and container toolkit.
FROM python:3.12.12-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Triton compiles the attention kernel with the C compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN pip install -c /source/constraints.txt "/source[heic]" && rm -r /source && useradd --create-home restore \
    && chmod 1777 /home/restore

# Any user may run the image and has caches here.
ENV HOME=/home/restore
USER restore
WORKDIR /images
ENTRYPOINT ["restore"]
