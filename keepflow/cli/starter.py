"""The first flow file of a repository, commented."""

from __future__ import annotations

_HEAD = """\
# yaml-language-server: $schema={schema}
#
# What happens after a push. Check it with `keepflow lint`, and see what a push would do with `keepflow plan --ref dev`.
# Which branches reach an environment, who approves, and all secrets belong to the master's keepflow.yml, not here.
version: 1

image: {image}            # the repository name that releases get
"""

_CONTAINER = """
container:                # how one container of it runs; frozen into every release
  port: 8080              # where the application listens
  health: {path: /, within: 60s, successes: 3}
  # env: {TZ: UTC}
  # secrets: [DATABASE_URL]                         # names only; values belong to the environment
  # volumes: [{name: log, at: /log, shared: true}]  # not shared? then choose a strategy below
  # strategy: overlap     # new beside old, no request lost; or stop-first, with a maintenance page
"""

_BUILT = """
flows:
  dev:
    on: {push: dev}
    concurrency: latest   # a newer push takes the place of one that still waits
    steps:
      - build: .          # docker build; or run a script of yours: - run: scripts/build-image.sh dev
      - deploy: dev       # an environment of the master's keepflow.yml

  test:
    on: {push: [master, main]}
    steps:
      - build: .
      - push:             # to the registry, with a login lent to this run
      - deploy: test      # from here on a person promotes exactly this image
"""

_PLAIN = """
flows:
  check:
    on: [push, manual]
    steps:
      # Each line is shown before its output; the first line that fails fails the step.
      - run: |
          echo "building $KEEPFLOW_BRANCH at $KEEPFLOW_SHA"
          make test
      # With a Dockerfile: - build: .   then   - deploy: dev
"""


def flow_file_text(image: str, *, has_dockerfile: bool, schema: str) -> str:
    """Return a flow file that is valid as it stands: with build and deploy when there is a Dockerfile."""
    body = _CONTAINER + _BUILT if has_dockerfile else _PLAIN
    return _HEAD.format(schema=schema, image=image) + body
