# The master alone: it has no engine and no agent, and never runs anybody's code.
#
#   python -m build --wheel
#   docker build --file dockerfiles/master.Dockerfile --tag keepflow-master .
#   docker run --detach --init --restart unless-stopped --publish 127.0.0.1:8000:8000 \
#     --volume keepflow-home:/var/lib/keepflow-home --name keepflow-master keepflow-master
ARG BASE=python:3.11-slim
# hadolint ignore=DL3006
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git openssh-client \
 && rm -rf /var/lib/apt/lists/*
COPY dist/keepflow-*.whl /tmp/wheel/
# hadolint ignore=DL3013
RUN wheel=$(echo /tmp/wheel/keepflow-*.whl) \
 && pip install --no-cache-dir "${wheel}[master,postgres]" \
 && rm -r /tmp/wheel \
 && useradd --system --create-home --home-dir /var/lib/keepflow-home keepflow \
 && chmod 700 /var/lib/keepflow-home
USER keepflow
ENV KEEPFLOW_HOME=/var/lib/keepflow-home
VOLUME /var/lib/keepflow-home
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD \
  ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["keepflow"]
CMD ["master", "--listen", "0.0.0.0:8000"]
