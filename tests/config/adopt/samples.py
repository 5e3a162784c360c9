"""Files of other systems, as their own documentation shows them."""

from __future__ import annotations

CAICLOUD = """\
pre_build:                      # compile in a container, copy artefacts out
  image: golang:1.6
  volumes: [".:/go/src/github.com/caicloud/ci-demo-go"]
  commands: ["cd /go/src/github.com/caicloud/ci-demo-go/code", "go build -v -o app"]
  outputs: [/go/src/github.com/caicloud/ci-demo-go/code/app]
build: {context_dir: publish, dockerfile_name: Dockerfile_publish}
integration:
  services: {postgres: {image: "postgres:9.4.5"}, app: {image: BUILT_IMAGE}}
  image: golang:1.5
  environment: ["CGO_ENABLED=0"]
  commands: ["go run main.go"]
post_build: {image: golang:1.6, commands: ['echo "Built Successfully."']}
deploy:
  - {type: kubernetes, host: H, token: T-in-clear, cluster: c, namespace: n, deployment: redis-master}
"""

T1CICD = """\
name: pipeline-example
stages: [build, test, documentation]     # run in this order, one at a time
default: {image: "gradle:8.7"}           # only `image` allowed
jobs:
  validation: {stage: build, script: ["echo check", "gradle checkstyleMain"]}
  compile:    {stage: build, needs: [validation], script: ["gradle classes"]}
  testing:    {stage: test, image: "openjdk:8", script: ["gradle test"], allow_failure: true}
  javadoc:    {stage: documentation, script: ["gradle javadoc"], artifacts: {paths: [build/docs/javadoc/]}}
"""

FLOW_BUILD_SERVER = """\
workflows:
    - workflow:
        name: "supper workflow"
        jobs:
            job:
                name: "git"
                action: git-compose.yml
                success:
                    - build
                fail:
                    - email
            job:
                name: build
                action: build-compose.yml
                success:
                    - deploy
                fail:
                    - email
            job:
                name: deploy
                action: qa-deploy-compose.yml
                success:
                    - integration-tests
                fail:
                    - email
            job:
                name: integration-tests
                action: integration-compose.yml
                fail:
                    - email
            job:
                name: email
                action: email-compose.yaml
"""

WOODPECKER = """\
when:
  - event: [push, pull_request]
    branch: {include: [main, "release/*"], exclude: "release/old"}
    path: ["src/**"]
variables:
  - &node node:22
services:
  - name: database
    image: postgres:16
    environment: {POSTGRES_PASSWORD: test}
    ports: [5432]
steps:
  - name: install
    image: *node
    commands: [npm ci]
  - name: Unit Tests
    image: *node
    environment:
      NODE_ENV: test
      NPM_TOKEN: {from_secret: npm_token}
    commands:
      - npm test -- --grep "it's fine"
  - name: lint
    image: *node
    failure: ignore
    commands: [npm run lint]
  - name: publish
    image: woodpeckerci/plugin-docker-buildx
    settings: {repo: example/shop, tags: [latest], dockerfile: docker/Dockerfile, password: {from_secret: pw}}
  - name: on tags only
    image: *node
    commands: [npm publish]
    when: {event: tag}
  - name: complain
    image: alpine
    commands: [./complain.sh]
    when: {status: [failure]}
  - name: slack
    image: plugins/slack
    settings: {channel: dev}
matrix: {NODE: [20, 22]}
"""

DRONE = """\
kind: pipeline
type: docker
name: default
platform: {os: linux, arch: arm64}
trigger: {branch: [master], event: [push]}
steps:
- name: backend
  image: golang
  commands: [go build, go test]
  volumes: [{name: cache, path: /go}]
- name: frontend
  image: node
  commands: [npm install, npm run test]
  depends_on: [backend]
---
kind: pipeline
type: exec
name: nightly
trigger: {event: [cron]}
steps:
- name: long
  commands: [make long]
---
kind: secret
name: password
get: {path: secret/data}
"""

GITLAB = """\
stages: [build, test, deploy]
default: {image: "python:3.12"}
variables: {PIP_CACHE_DIR: "$CI_PROJECT_DIR/.cache"}
before_script: [pip install -r requirements.txt]
.tests: &tests
  stage: test
  services: [{name: "postgres:16", alias: db, variables: {POSTGRES_PASSWORD: x}}]
compile:
  stage: build
  script: [make]
  artifacts: {paths: [dist/], expire_in: 1 week}
unit tests:
  extends: .tests
  script: [pytest]
  coverage: '/TOTAL.+ ([0-9]{1,3}%)/'
style:
  <<: *tests
  script: [ruff check]
  allow_failure: true
  needs: [compile]
  tags: [docker]
report:
  stage: deploy
  script: [./report.sh]
  when: on_failure
ship:
  stage: deploy
  script: [./ship.sh]
  only: [main]
rollback:
  stage: deploy
  script: [./back.sh]
  when: manual
"""
