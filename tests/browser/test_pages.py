"""Pages in a real browser: signing in, the board, promoting, and how every page fits two sizes and two schemes."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from keepflow.core.flows import JobKind
from keepflow.store import deployments, environments, placements
from keepflow.wire import messages
from tests.browser.conftest import Open
from tests.web.story import PASSWORD, Story, promote

pytestmark = pytest.mark.browser

PAGES = {
    "login": "/login",
    "home": "/",
    "project": "/projects/keepwork",
    "environments": "/projects/keepwork/environments",
    "environments-empty": "/projects/shop/environments",
    "promote": "/projects/keepwork/environments/production/promote?source=3",
    "promote-refused": "/projects/keepwork/environments/production/promote?source=4",
    "history": "/projects/keepwork/environments/production/deployments",
    "runs": "/runs",
    "run-done": "/projects/keepwork/runs/3",
    "run-failed": "/projects/keepwork/runs/5",
    "run-live": "/projects/keepwork/runs/6",
    "run-promote": "/projects/keepwork/runs/2",
    "deliveries": "/projects/keepwork/deliveries",
    "delivery": "/projects/keepwork/deliveries/1",
    "agents": "/agents",
    "api": "/api/v1/docs",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_fits(name: str, width: int, scheme: str, opened: Open, pictures: Path) -> None:
    person = {"login": None, "environments-empty": "root"}.get(name, "bo")
    watched = opened(person, width, 800 if width == 1280 else 844, scheme)
    page = watched.open(PAGES[name])
    page.wait_for_function("document.readyState === 'complete'")
    page.screenshot(path=pictures / f"{name}-{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than the window"
    small = page.evaluate(
        """[...document.querySelectorAll('main :is(button, .button, input, select, textarea)')]
           .filter((one) => one.offsetParent && !one.matches('.copy, [type=checkbox]') && one.offsetHeight < 28)
           .map((one) => one.outerHTML)"""
    )
    assert small == [], "these are too small for a finger"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str, opened: Open) -> None:
    for path in ("/projects/keepwork/environments", "/projects/keepwork/runs/5", "/runs", "/agents"):
        page = opened("bo", 1280, 800, scheme).open(path)
        faint = page.evaluate(CONTRAST)
        assert faint == [], f"{path}: contrast below 4.5"


#: Text elements whose colour has less than 4.5 of contrast with the first opaque ground behind them.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data; };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => { for (let at = one; at; at = at.parentElement) {
    const found = rgba(getComputedStyle(at).backgroundColor); if (found[3] > 250) return found; }
    return [255, 255, 255]; };
  const wrong = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !one.offsetParent || one.closest("[disabled], .ln > a")) continue;
    const [a, b] = [light(rgba(getComputedStyle(one).color)), light(ground(one))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) wrong.push(`${contrast.toFixed(2)} ${one.outerHTML.slice(0, 120)}`);
  }
  return wrong;
}"""


def test_signing_in_leads_to_where_one_was_going_and_out_again(opened: Open) -> None:
    watched = opened(None)
    page = watched.open("/projects/keepwork/environments")
    expect(page.get_by_label("Name")).to_be_focused()
    page.get_by_label("Name").fill("bo")
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("do not fit")
    watched.complaints.clear()  # the browser writes the 401 to its console
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{watched.url}/projects/keepwork/environments")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_everything_can_be_reached_by_keyboard_and_the_focus_is_seen(opened: Open) -> None:
    page = opened("bo").open("/projects/keepwork/environments")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.trim()"))
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none", page.evaluate("document.activeElement.outerHTML")[:300]
        if any("Promote #3" in text for text in reached):
            return
    pytest.fail(f"the button was not reached: {reached}")


def test_a_refresh_takes_neither_the_focus_nor_what_was_opened(opened: Open, told: tuple[str, Story]) -> None:
    _, story = told
    page = opened("bo").open("/projects/keepwork/environments")
    others = page.locator("summary", has_text="other releases")
    others.click()
    page.get_by_role("link", name="Promote #3 to production").focus()
    page.evaluate("document.querySelector('.board').dataset.old = 'yes'")
    seen = {"identity": "sha256:" + "9" * 64}
    with story.master.database.read() as conn:
        test = environments.by_name(conn, story.project().id, "test")
    assert test is not None
    host = test.hosts[0]
    for observed in ({**(host.observed or {}), **seen}, host.observed or {}):
        story.write(lambda tx, observed=observed: placements.observe(tx.conn, test.id, "local", observed))
        page.evaluate("document.body.dispatchEvent(new Event('keepflow:changed'))")
        drifts = page.get_by_role("region", name="test").get_by_text("drift", exact=True)
        expect(drifts).to_have_count(1 if observed.get("identity") == seen["identity"] else 0)
    assert page.locator(".board[data-old]").count() == 0, "the page was really swapped"
    expect(page.get_by_role("link", name="Promote #3 to production")).to_be_focused()
    expect(page.locator("details", has=others)).to_have_attribute("open", "")
    page.evaluate("document.querySelector('.board').dataset.old = 'yes'")
    page.evaluate(
        """new Promise((done) => {
          document.body.addEventListener("htmx:afterOnLoad", () => done(), { once: true });
          document.body.dispatchEvent(new Event("keepflow:changed"));
        })"""
    )
    assert page.locator(".board[data-old]").count() == 1, "a refresh without news swaps nothing"


def test_a_digest_can_be_copied_whole(opened: Open) -> None:
    watched = opened("bo")
    watched.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = watched.open("/projects/keepwork/environments")
    page.get_by_role("button", name="a0a0a0a0a0a0").click()
    expect(page.locator("#said")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "sha256:" + "a0" * 32


def test_times_are_shown_in_the_viewers_words(opened: Open) -> None:
    page = opened("bo").open("/projects/keepwork/environments")
    times = page.locator("time")
    expect(times.first).to_have_text("yesterday") if "yesterday" in times.first.inner_text() else None
    assert all("UTC" not in text for text in times.all_inner_texts())
    assert page.locator("time").first.get_attribute("datetime")


def test_a_promote_needs_the_name_typed_and_then_runs_live_on_every_page(opened: Open, told: tuple[str, Story]) -> None:
    _, story = told
    board = opened("ann").open("/projects/keepwork/environments")
    production = board.get_by_role("region", name="production")
    expect(production).to_contain_text("a0a0a0a0a0a0")
    page = opened("bo").open("/projects/keepwork/environments")
    page.get_by_role("link", name="Promote #3 to production").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Promote keepwork#3 to production")
    expect(page.locator("time").first).not_to_contain_text("UTC")  # our script is there
    page.get_by_label("to confirm").fill("test")
    page.get_by_role("button", name="Promote to production").click()
    assert page.evaluate("document.querySelector('[name=typed]').validationMessage") == "Type production"
    page.get_by_label("Note").fill("ann tested it")
    page.get_by_label("to confirm").fill("production")
    page.get_by_role("button", name="Promote to production").dblclick()
    expect(page.get_by_role("heading", name="Deployment to production")).to_be_visible()
    number = int(page.url.rpartition("/")[2])
    story.deploy(number, until="switching")
    expect(page.locator(".phases .now")).to_have_text("switching")
    expect(production).to_contain_text(f"bo is deploying keepwork#{number}")
    for phase in ("proving", "watching"):
        report(story, number, phase)
        expect(page.locator(".phases .now")).to_have_text(phase)
        expect(production.locator(".phases .now")).to_have_text(phase)
    report(story, number, "done")
    expect(page.locator("#run-head .state")).to_have_text("succeeded")
    expect(production).to_contain_text("b0b0b0b0b0b0")
    expect(production).to_contain_text("bo, from keepwork#3")
    promote(story, "1", rollback=True)
    expect(production).to_contain_text("a0a0a0a0a0a0")


def report(story: Story, number: int, phase: str) -> None:
    """Let the agent report the next phase of a deployment, or that it is done."""
    agent, attempt = story.attempt(number, kind=JobKind.DEPLOY)
    with story.master.database.read() as conn:
        found = deployments.by_fence(conn, attempt.fence)
    assert found is not None
    at = story.wait(1)
    entered = messages.DeployPhase(fence=attempt.fence, deployment=found.id, at=at, phase=phase)
    ended = messages.DeployFinished(
        fence=attempt.fence, deployment=found.id, at=at, outcome="done", serving=found.identity
    )
    story.report(agent, ended if phase == "done" else entered)


def test_lists_change_while_one_looks(opened: Open, told: tuple[str, Story]) -> None:
    _, story = told
    page = opened("bo").open("/runs")
    expect(page.locator(".rows > li").first).to_contain_text("keepwork#")
    message = "Appears by itself"
    story.push("test", story.commit(message), message)
    expect(page.locator(".rows > li").first).to_contain_text(message)
    page.get_by_label("State").select_option("failed")
    expect(page.locator(".rows > li")).to_have_count(1)
    assert "state=failed" in page.url


def test_what_happens_before_the_stream_is_open_is_seen_as_well(opened: Open, told: tuple[str, Story]) -> None:
    _, story = told
    watched, message = opened("bo"), "Happened in between"

    def late(route: Route) -> None:
        story.push("test", story.commit(message), message)
        route.continue_()

    watched.page.route("**/streams/events*", late, times=1)
    page = watched.open("/runs")
    expect(page.locator(".rows > li").first).to_contain_text(message)


def test_an_agent_that_goes_away_is_seen_at_once(opened: Open, told: tuple[str, Story]) -> None:
    _, story = told
    page = opened("root").open("/agents")
    card = page.get_by_role("region", name="prod-1")
    expect(card.locator(".state")).to_have_text("online")
    story.lose_agent("prod-1")
    expect(card.locator(".state")).to_have_text("offline")
    story.agent("prod-1", "deploy")
    expect(card.locator(".state")).to_have_text("online")
