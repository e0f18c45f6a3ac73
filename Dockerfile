# One image for all the apps: docker-compose.yml says which command runs.
FROM python:3.13-slim AS build

# What changes rarely comes first, so that a change of the code rebuilds only the last layers.
# watchfiles is for docker-compose.dev.yml.
RUN python -m venv --without-pip /opt/venv
RUN pip --python /opt/venv/bin/python install \
    "redis[hiredis]==8.*" "flask==3.*" "starlette==1.*" "anyio==4.*" "click==8.*" "celery[redis]==5.*" \
    "gunicorn==27.*" "uvicorn==0.*" "uvloop==0.*" "httptools==0.*" "watchfiles==1.*"

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY streamy_redis streamy_redis
RUN pip --python /opt/venv/bin/python install ".[flask,starlette,hiredis,cli]"

# Neither pip nor its cache nor the source comes along.
FROM python:3.13-slim

RUN useradd --system --no-create-home app
COPY --from=build /opt/venv /opt/venv
COPY integrations /app/integrations

ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
USER app
WORKDIR /app/integrations/gunicorn-flask
EXPOSE 8000
CMD ["gunicorn", "--bind", "0.0.0.0:8000", "app:app"]
