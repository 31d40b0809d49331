# One image for every process; docker-compose.yml says which one a container runs.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --require-hashes -r requirements.txt \
 && useradd --uid 10001 --no-create-home ctrip
COPY . .
USER 10001
# SIGTERM, which `docker stop` sends, is a stop for every process of ours: what runs finishes, the rest is put back. Run
# them with an init (`init: true`, `docker run --init`) that tells the first process alone, not its group (no `tini -g`),
# and with a stop_grace_period longer than WORKER_STOP_SECONDS (50): whoever is killed sooner runs again 35 s later.
STOPSIGNAL SIGTERM
CMD ["granian", "--interface", "wsgi", "--host", "0.0.0.0", "--port", "8000", "--workers", "1", "--blocking-threads", "4", "--no-ws", "wsgi:application"]
