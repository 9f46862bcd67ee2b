# The service (and `score`) without torch; docs/deploy.md says how to run it.
FROM python:3.11.14-slim-trixie

WORKDIR /app
COPY requirements.txt requirements-serve.txt ./
RUN pip install --no-cache-dir -r requirements-serve.txt
COPY serve serve
COPY sslbt sslbt
# All but the cache may be read-only. In it are versions fetched from a registry: a later container starts with them.
RUN python -m compileall -q serve sslbt && install -d -m 1777 /var/cache/sslbt
VOLUME /var/cache/sslbt
ENV PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 SSLBT_HOME=/var/cache/sslbt

USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/ready')"]
ENTRYPOINT ["python", "-m", "sslbt"]
CMD ["serve", "--host", "0.0.0.0"]
