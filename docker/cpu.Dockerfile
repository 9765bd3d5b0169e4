# docker build -f docker/cpu.Dockerfile -t restore .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/images" restore denoise photos/
#
# The results belong to you. -v "$HOME/.cache:/home/restore/.cache" keeps the checkpoints that are downloaded.
# Set --build-arg PIP_EXTRA_INDEX_URL=… to an index with CPU builds of PyTorch; else the image holds its CUDA libraries too.
FROM python:3.12.12-slim-bookworm

ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

COPY . /source
RUN pip install -c /source/constraints.txt "/source[heic]" && rm -r /source && useradd --create-home restore \
    && chmod 1777 /home/restore

# Any user may run the image and has caches here.
ENV HOME=/home/restore
USER restore
WORKDIR /images
ENTRYPOINT ["restore"]
