# One image for both boards and the job: docker-compose.yml says which command runs.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# What changes rarely comes first, so that a change of the code rebuilds only the last layers.
RUN pip install "redis[hiredis]==8.*" "flask==3.*" "starlette==1.*" "anyio==4.*" \
    "gunicorn==27.*" "uvicorn[standard]==0.*"

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY streamy_redis streamy_redis
RUN pip install --no-deps .
COPY integrations integrations

RUN useradd --system --no-create-home board
USER board

WORKDIR /app/integrations/gunicorn-flask
EXPOSE 8000
CMD ["gunicorn", "--bind", "0.0.0.0:8000", "app:app"]
