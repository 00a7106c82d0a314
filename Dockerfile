# The page in a container:
#   docker build -t maskgit . && docker run -p 7860:7860 maskgit
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 visitor
WORKDIR /home/visitor/app

# The usual torch for Linux brings CUDA along. For a smaller image without it:
#   --build-arg PIP_EXTRA_INDEX_URL=(PyTorch's index of CPU packages)
ARG PIP_EXTRA_INDEX_URL
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt

COPY app.py LICENSE ./
COPY maskgit_core maskgit_core
COPY demo demo
COPY checkpoints checkpoints

USER 1000
ENV HF_HOME=/home/visitor/.cache/huggingface \
    MASKGIT_PRECISION=auto \
    PYTHONUNBUFFERED=1
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "7860"]
