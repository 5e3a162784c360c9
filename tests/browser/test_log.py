"""The live log in a real browser: whole, in order, bounded, and harmless."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Open
from tests.real.waiting import wait_until
from tests.web import hostile_story, payloads
from tests.web.story import Story, Work

pytestmark = pytest.mark.browser

COMPLETE = "Complete"


def begin(story: Story, message: str) -> tuple[int, Work]:
    """Start a run whose script job an agent holds."""
    number = story.push("test", story.commit(message), message)
    return number, story.begin(number)


def expect_in_log(line: Locator, seen: bool = True) -> None:
    """Wait until a line is (or is not) in the visible part of the log."""
    visible = """(line) => {
      const [one, all] = [line.getBoundingClientRect(), line.closest(".log-body").getBoundingClientRect()];
      return one.top >= all.top - 1 && one.bottom <= all.bottom + 1;
    }"""
    wait_until(lambda: line.evaluate(visible) is seen, 20, f"the line {'in' if seen else 'out of'} sight")


def test_a_log_grows_while_one_looks_from_line_one(opened: Open, told: tuple[str, Story]) -> None:
    _, story = told
    number, work = begin(story, "Grow")
    work.open_step("scripts/build.sh").say("first\n")
    page = opened("root").open(f"/projects/keepwork/runs/{number}")
    expect(page.locator(".ln")).to_have_text(["1first"])
    expect(page.locator(".log-part b")).to_have_text("scripts/build.sh")
    work.say("sec")
    expect(page.locator(".ln").last).to_have_text("2sec")
    work.say("ond\nthird ✓\n")
    expect(page.locator(".ln")).to_have_text(["1first", "2second", "3third ✓"])
    work.end(1)
    expect(page.locator(".log-bar .status")).to_have_text(COMPLETE)
    expect(page.locator("#run-head .state")).to_have_text("failed")
    expect(page.locator(".failure")).to_contain_text("exit code")


def test_groups_fold_and_open_and_change_nothing_else(opened: Open, told: tuple[str, Story]) -> None:
    _, story = told
    number, work = begin(story, "Group")
    work.say("before\n::gro")
    page = opened("root").open(f"/projects/keepwork/runs/{number}")
    expect(page.locator(".ln")).to_have_count(2)
    work.say("up::Fetch \x1b[31mall\x1b[0m\none\ntwo\n::endgroup::\nafter\n")
    name = page.locator(".ln.opens > [role=button]")
    expect(name).to_have_text("Fetch all")
    expect(page.locator(".ln:visible")).to_have_text(["1before", "2Fetch all", "3one", "4two", "6after"])
    name.click()
    expect(page.locator(".ln:visible")).to_have_text(["1before", "2Fetch all", "6after"])
    expect(name).to_have_attribute("aria-expanded", "false")
    page.goto(page.url.partition("#")[0] + "#L4")
    expect(page.locator(".ln:visible")).to_have_count(5)
    name.press("Enter")
    expect(page.locator(".ln:visible")).to_have_count(3)
    work.end(0)


def test_a_cut_connection_leaves_no_gap_and_no_double(opened: Open, told: tuple[str, Story]) -> None:
    _, story = told
    number, work = begin(story, "Cut")
    work.say("".join(f"line {n}\n" for n in range(1, 201)))
    watched = opened("root")
    page = watched.open(f"/projects/keepwork/runs/{number}")
    expect(page.locator(".ln")).to_have_count(200)
    said = 200
    for _ in range(5):
        page.context.set_offline(True)
        work.say("".join(f"line {n}\n" for n in range(said + 1, said + 41)))
        said += 40
        page.context.set_offline(False)
        expect(page.locator(".ln").last).to_have_text(f"{said}line {said}", timeout=30_000)
    work.end()
    expect(page.locator(".log-bar .status")).to_have_text(COMPLETE, timeout=30_000)
    assert page.locator(".ln > span").all_inner_texts() == [f"line {n}" for n in range(1, said + 1)]
    watched.complaints.clear()  # the browser writes each cut to its console


def test_a_hidden_tab_holds_no_stream_and_misses_nothing(opened: Open, told: tuple[str, Story]) -> None:
    _, story = told
    number, work = begin(story, "Hide")
    work.say("one\n")
    page = opened("root").open(f"/projects/keepwork/runs/{number}")
    expect(page.locator(".ln")).to_have_count(1)
    hide = "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
    hide += "document.dispatchEvent(new Event('visibilitychange')) }"
    page.evaluate(hide, True)
    work.say("two\nthree\n")
    page.evaluate(hide, False)
    expect(page.locator(".ln")).to_have_text(["1one", "2two", "3three"])
    work.end()


def test_a_long_log_is_whole_but_only_partly_in_the_page(opened: Open, told: tuple[str, Story]) -> None:
    _, story = told
    number, work = begin(story, "Long")
    work.open_step("scripts/long.sh")
    for start in range(1, 60_001, 5000):
        work.say("".join(f"{'x' * (n % 90)} {n}\n" for n in range(start, start + 5000)))
    page = opened("root").open(f"/projects/keepwork/runs/{number}#L30000")
    expect(page.locator(".ln.marked")).to_have_count(1, timeout=60_000)
    expect(page.locator(".ln.marked > a")).to_have_text("30000")
    expect_in_log(page.locator(".ln.marked"))
    assert page.locator(".ln").count() < 6000
    page.get_by_label("follow").check()
    expect(page.locator(".ln").last).to_contain_text("60000")
    expect_in_log(page.locator(".ln").last)
    work.say("the newest line\n")
    expect(page.locator(".ln").last).to_contain_text("the newest line")
    expect_in_log(page.locator(".ln").last)
    page.locator(".log-body").hover()
    page.mouse.wheel(0, -4000)
    expect(page.get_by_label("follow")).not_to_be_checked()
    work.say("one more\n")
    expect_in_log(page.locator(".ln").last, seen=False)
    work.end()
    expect(page.locator(".log-bar .status")).to_have_text(COMPLETE)
    assert page.locator(".ln").count() < 6000


def test_a_link_to_lines_marks_them_and_a_range_is_made_with_shift(opened: Open) -> None:
    page = opened("root").open("/projects/keepwork/runs/5#L3")
    expect(page.locator(".ln.marked > a")).to_have_text("3")
    page.locator(".ln > a", has_text="7").first.click(modifiers=["Shift"])
    expect(page.locator(".ln.marked")).to_have_count(5)
    assert page.url.endswith("#L3-L7")
    page.reload()
    expect(page.locator(".ln.marked > a")).to_have_text(["3", "4", "5", "6", "7"])


def test_a_failed_run_opens_with_the_step_that_failed(opened: Open) -> None:
    page = opened("root").open("/projects/keepwork/runs/5")
    failure = page.locator(".failure")
    expect(failure).to_contain_text("scripts/push-image.sh test failed: exit code 137")
    expect(failure).to_contain_text("It was killed, or the machine ran out of memory.")
    expect(failure.locator(".excerpt")).to_contain_text("layer 3: Killed")
    page.get_by_role("link", name="scripts/push-image.sh test").click()
    expect_in_log(page.locator(".log-part", has_text="push-image"))


def test_colours_are_shown_and_lines_written_over_show_their_end(opened: Open) -> None:
    page = opened("root").open("/projects/keepwork/runs/5")
    expect(page.locator(".ansi-yellow-fg")).to_have_text("warning")
    expect(page.locator(".ln", has_text="Downloading")).to_have_text("8Downloading 100%")
    orange = page.locator(".ln span span", has_text="412 kB")
    assert orange.evaluate("(one) => getComputedStyle(one).color") == "rgb(255, 135, 0)"


def test_two_thousand_hostile_lines_do_nothing_but_appear(opened: Open, told: tuple[str, Story]) -> None:
    _, story = told
    number, work = begin(story, "Hostile log")
    work.open_step(payloads.XSS[0])
    page = opened("root").open(f"/projects/keepwork/runs/{number}")
    lines = list(payloads.log_lines(2000))
    for start in range(0, 2000, 250):
        work.say("".join(f"{line}\n" for line in lines[start : start + 250]))
    work.say("the end\n")
    expect(page.locator(".ln").last).to_have_text("2001the end", timeout=30_000)
    page.evaluate("document.querySelector('.log-body').scrollTop = 0")
    expect(page.locator(".ln > span").first).to_have_text(lines[0])
    expect_in_log(page.locator(".ln").first)
    outside = page.evaluate(
        "[...document.querySelectorAll('.log-body *')].map((one) => one.tagName)"
        ".filter((tag) => !['DIV', 'SPAN', 'A', 'B'].includes(tag))"
    )
    assert outside == []
    addresses = page.evaluate("[...document.querySelectorAll('.log-body a')].map((one) => one.getAttribute('href'))")
    assert all(address.startswith("#L") for address in addresses)
    work.end()


def test_hostile_text_on_every_page_does_nothing(opened: Open, told: tuple[str, Story]) -> None:
    _, story = told
    paths = hostile_story.tell_more(story)
    watched = opened("root")
    for path in paths:
        page = watched.open(path)
        page.wait_for_function("document.readyState === 'complete'")
        watched.check()
