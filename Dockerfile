# One image for every service of docker-compose.yml: workers, migrations, Flower.
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml setup.cfg README.md celeryconfig.py ./
COPY llmchatlinker ./llmchatlinker
COPY workers ./workers
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
# The root file system is read-only at run time; pip has compiled what it installed.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin llmchatlinker
# Before the package: a change of the code does not install the requirements anew.
COPY requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --root-user-action=ignore -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --root-user-action=ignore --no-deps /wheels/*.whl
# A volume that is mounted here belongs to whom it belongs to here: Flower keeps what it saw.
RUN install --directory --owner=llmchatlinker --group=llmchatlinker --mode=0700 /var/lib/llmchatlinker
USER llmchatlinker
CMD ["python", "-m", "llmchatlinker.main"]
