# An agent for a host where keepflow is not to be installed. It needs the engine's socket and the host's network, which
# makes it root on that host: the systemd unit in agents/ gives it no more, and is the better way where there is a choice.
#
#   python -m build --wheel
#   docker build --file dockerfiles/agent.Dockerfile --tag keepflow-agent .
#   docker run --detach --init --restart unless-stopped --network host --pid host \
#     --volume /var/run/docker.sock:/var/run/docker.sock \
#     --volume /etc/keepflow:/etc/keepflow:ro --volume /var/lib/keepflow:/var/lib/keepflow \
#     --volume /etc/nginx/conf.d:/etc/nginx/conf.d --name keepflow-agent keepflow-agent
ARG BASE=python:3.11-slim
# hadolint ignore=DL3006
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends docker.io git nginx-light \
 && rm -rf /var/lib/apt/lists/*
COPY dist/keepflow-*.whl /tmp/wheel/
# hadolint ignore=DL3013
RUN wheel=$(echo /tmp/wheel/keepflow-*.whl) \
 && pip install --no-cache-dir "${wheel}" \
 && rm -r /tmp/wheel
VOLUME /var/lib/keepflow
ENTRYPOINT ["keepflow"]
CMD ["agent", "run"]
