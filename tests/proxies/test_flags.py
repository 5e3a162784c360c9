"""Flag directories: one complete state in force, whatever happens while it is changed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow.ports import Traffic
from keepflow.proxies._flags import CANARY_PERCENT, Flags, checked, traffic_of, words_of
from keepflow.tools import failpoints

_words = st.sets(st.sampled_from(["blue", "green", "net", "maint", "count", "c10g", "c10b", "c50g"]))
_traffic = st.builds(
    Traffic,
    st.sampled_from(["blue", "green"]),
    net=st.booleans(),
    maintenance=st.booleans(),
    canary=st.sampled_from([0, *CANARY_PERCENT]),
    counted=st.booleans(),
) | st.just(Traffic(None, maintenance=True))


@given(_traffic)
def test_a_traffic_comes_back_from_its_words(traffic: Traffic) -> None:
    assert traffic_of(frozenset(words_of(traffic))) == traffic


@given(_words)
def test_a_state_names_one_slot_and_one_canary_to_the_other_or_is_maint_alone(words: set[str]) -> None:
    slots = words & {"blue", "green"}
    canaries = words & {"c10g", "c10b", "c50g"}
    to_itself = {word for word in canaries for slot in slots if word.endswith(slot[0])}
    legal = (len(slots) == 1 and len(canaries) <= 1 and not to_itself) or words == {"maint"}
    if legal:
        assert set(checked(words)) == words
        assert traffic_of(frozenset(words)) is not None
    else:
        with pytest.raises(ValueError, match="state"):
            checked(words)
        assert traffic_of(frozenset(words)) is None


@pytest.mark.parametrize("word", ["../x", "blue\n", "", "BLUE", "c7g"])
def test_a_word_outside_the_grammar_is_no_flag(word: str) -> None:
    with pytest.raises(ValueError, match="not a flag"):
        checked({"blue", word})


def test_every_canary_of_the_template_is_a_word() -> None:
    for percent in CANARY_PERCENT:
        for slot, way in (("blue", "g"), ("green", "b")):
            assert checked({slot, f"c{percent}{way}"}) == (slot, f"c{percent}{way}")
            assert words_of(Traffic(slot, canary=percent)) == (slot, f"c{percent}{way}")


@given(st.lists(_traffic, min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)  # it fsyncs
def test_the_last_state_is_in_force_and_only_a_few_old_ones_are_kept(story: list[Traffic]) -> None:
    with tempfile.TemporaryDirectory() as place:
        flags = Flags(Path(place), "kf-shop-main")
        for traffic in story:
            flags.put(words_of(traffic))
            assert traffic_of(Flags(Path(place), "kf-shop-main").read()) == traffic
        kept = sorted(path.name for path in (flags.place / "states").iterdir())
        assert len(kept) == min(len(story), 5)
        assert kept[-1] == f"{len(story):04d}-{'-'.join(words_of(story[-1]))}"
        assert flags.current.readlink() == Path("states") / kept[-1], "relative, so that a container can mount it"


def test_every_level_can_be_passed_by_nginxs_workers_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        Flags(tmp_path / "keepflow" / "sw", "kf-shop-main").put(["blue"])
    finally:
        os.umask(before)
    places = [tmp_path / "keepflow", *(tmp_path / "keepflow").rglob("*")]
    for path in places:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


@pytest.mark.parametrize(("point", "after"), [("flags.before-rename", "blue"), ("flags.after-rename", "green")])
def test_a_switch_that_breaks_off_leaves_the_old_or_the_new_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, after: str
) -> None:
    flags = Flags(tmp_path, "kf-shop-main")
    flags.put(["blue"])
    monkeypatch.setenv(failpoints.VARIABLE, f"{point}=raise")
    with pytest.raises(failpoints.Injected):
        flags.put(["green"])
    assert flags.read() == {after}
    monkeypatch.delenv(failpoints.VARIABLE)
    flags.put(["green", "net"])
    assert flags.read() == {"green", "net"}


@pytest.mark.parametrize("broken", ["nothing", "dangling", "a file"])
def test_a_current_state_that_is_none_reads_as_none(tmp_path: Path, broken: str) -> None:
    flags = Flags(tmp_path, "kf-shop-main")
    flags.put(["blue"])
    flags.current.unlink()
    if broken == "dangling":
        flags.current.symlink_to("states/9999-gone")
    elif broken == "a file":
        flags.current.write_text("x")
    assert flags.read() is None
    assert traffic_of(flags.read()) is None
    flags.put(["green"])
    assert flags.read() == {"green"}


def test_removing_what_is_gone_is_fine(tmp_path: Path) -> None:
    flags = Flags(tmp_path, "kf-shop-main")
    flags.put(["blue"])
    flags.remove()
    flags.remove()
    assert flags.read() is None
