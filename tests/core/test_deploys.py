"""Descriptions of containers: resolved, hashed and compared without surprise."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.deploys import (
    Change,
    Overrides,
    canonical,
    changes,
    description_hash,
    from_json,
    resolve,
    to_json,
)
from keepflow.core.flows import Container, Health, Strategy, Volume

words = st.text(alphabet="abcXYZ09 é\"'\\${}:", max_size=12)
seconds = st.floats(min_value=0, max_value=1e6, allow_nan=False)
containers = st.builds(
    Container,
    port=st.integers(1, 65535),
    health=st.builds(
        Health, path=words, within=seconds, successes=st.integers(1, 9), timeout=seconds, interval=seconds
    ),
    env=st.dictionaries(words, words, max_size=4),
    secrets=st.lists(words, max_size=3).map(tuple),
    volumes=st.lists(st.builds(Volume, name=words, at=words, shared=st.booleans()), max_size=3).map(tuple),
    args=st.lists(words, max_size=3).map(tuple),
    strategy=st.sampled_from(Strategy),
    stop_timeout=seconds,
)
overrides = st.builds(
    Overrides,
    env=st.dictionaries(words, words, max_size=3),
    args=st.none() | st.lists(words, max_size=2).map(tuple),
    stop_timeout=st.none() | seconds,
    strategy=st.none() | st.sampled_from(Strategy),
)


@given(containers)
def test_a_description_survives_json_unchanged(container: Container) -> None:
    assert from_json(json.loads(json.dumps(to_json(container)))) == container


@given(containers)
def test_equal_descriptions_have_equal_hashes_whatever_the_order_of_their_variables(container: Container) -> None:
    turned = replace(container, env=dict(reversed(container.env.items())))
    assert description_hash(turned) == description_hash(container)
    assert description_hash(from_json(json.loads(canonical(to_json(container))))) == description_hash(container)


@given(containers, containers)
def test_hashes_differ_exactly_when_descriptions_do(one: Container, other: Container) -> None:
    assert (description_hash(one) == description_hash(other)) == (to_json(one) == to_json(other))


@given(containers)
def test_nothing_changes_against_itself(container: Container) -> None:
    assert changes(container, container) == []
    assert resolve(container, Overrides()) == container


@given(containers, overrides)
def test_an_environment_wins_in_what_it_says_and_changes_nothing_else(container: Container, given: Overrides) -> None:
    result = resolve(container, given)
    assert result.env == {**container.env, **given.env}
    assert result.args == (container.args if given.args is None else given.args)
    assert (result.port, result.health, result.volumes, result.secrets) == (
        container.port,
        container.health,
        container.volumes,
        container.secrets,
    )


def test_changes_name_each_setting_with_before_and_after() -> None:
    old = Container(env={"TZ": "UTC", "GONE": "1"})
    new = Container(env={"TZ": "Asia/Shanghai"}, port=80, secrets=("KEY",))
    assert changes(old, new) == [
        Change("env.GONE", "1", None),
        Change("env.TZ", "UTC", "Asia/Shanghai"),
        Change("port", "8080", "80"),
        Change("secrets.KEY", None, "by name"),
    ]


def test_against_nothing_every_setting_is_new() -> None:
    assert all(change.before is None for change in changes(None, Container()))


@pytest.mark.parametrize("data", [{}, {"port": "x"}, {**to_json(Container()), "strategy": "never"}])
def test_what_is_no_description_is_refused(data: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_json(data)


def test_a_secret_as_a_variable_is_a_change_everybody_reads_and_changes_no_other_description() -> None:
    plain = Container(secrets=("KEY",))
    shown = Container(secrets=("KEY",), secrets_in_env=("KEY",))
    assert "secrets_in_env" not in to_json(plain)
    assert from_json(to_json(shown)) == shown
    assert description_hash(plain) != description_hash(shown)
    [change] = changes(plain, shown)
    assert (change.setting, change.before) == ("secrets.KEY", "by name")
    assert change.after is not None
    assert "root sees" in change.after
