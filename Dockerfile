# adafocus for CPU or CUDA; the argument chooses the wheels of torch.
#
#   docker build -t adafocus .                                  # CPU
#   docker build -t adafocus --build-arg TORCH=cu126 .          # CUDA 12.6; run it with --gpus all
#   docker run --rm -v "$PWD:/data" adafocus run dataset=folder dataset.root=/data/videos
FROM python:3.12-slim

ARG TORCH=cpu
ARG EXTRAS=timm,hub

# FFmpeg is inside the wheels of PyAV and decord; matplotlib and Pillow need nothing of the system either.
RUN useradd --create-home --uid 1000 adafocus && mkdir /data && chown adafocus /data
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY adafocus adafocus
COPY conf conf
# The index has torch and torchvision only, so that the kind of wheel is certain; all others come from PyPI afterwards.
RUN pip install --no-cache-dir "torch>=2.6" "torchvision>=0.21" --index-url "https://download.pytorch.org/whl/${TORCH}" \
    && pip install --no-cache-dir ".[${EXTRAS}]" \
    && rm -rf /src

USER adafocus
WORKDIR /data
# Loader processes exchange batches over /dev/shm, of which Docker gives 64 MB: run with --shm-size=2g or --ipc=host.
ENTRYPOINT ["adafocus"]
CMD ["--help"]
