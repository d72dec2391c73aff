# The image of the service. It migrates nothing by itself and has no stores: see compose.yaml.
FROM python:3.13-slim AS build
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
# First what changes seldom. A file that is not the one that was tested has another hash.
COPY requirements.lock ./
RUN pip install --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY sql/migrations sql/migrations
RUN pip install --no-deps .

FROM python:3.13-slim
# A fixed number, so that a volume or a policy can name it.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin service \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Files that wait for their import in the background: mount a volume, so that they last.
ENV SERVICE_DATA=/data
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
# No proxy may stand between the container and itself. 503 raises, and the exit code says it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/health/ready', timeout=4)"]
CMD ["swiftlet", "serve", "--host", "0.0.0.0"]
