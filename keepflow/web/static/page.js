// What every page does: times in the viewer's zone, copy buttons, live refresh, and guards on the confirm form.
// Text from outside only ever reaches the page as text: no innerHTML here.

import "./keep.js";
import { Stream, calmly } from "./stream.js";

const ago = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

function relative(at, now) {
  const seconds = (at - now) / 1000;
  if (Math.abs(seconds) < 5) return ago.format(0, "second");
  for (const [unit, length] of UNITS) {
    if (Math.abs(seconds) >= length) return ago.format(Math.trunc(seconds / length), unit);
  }
  return ago.format(Math.trunc(seconds), "second");
}

function length(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} m ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} m`;
}

function times(root = document) {
  const now = Date.now();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const at = Date.parse(element.dateTime);
    if (Number.isNaN(at)) continue;
    element.textContent = relative(at, now);
    element.title = full.format(at);
  }
  for (const element of root.querySelectorAll("[data-running-since]")) {
    element.textContent = length(now - Number(element.dataset.runningSince));
  }
}

let fading;
export function say(text) {
  const said = document.getElementById("said");
  said.textContent = text;
  said.classList.add("on");
  clearTimeout(fading);
  fading = setTimeout(() => said.classList.remove("on"), 1600);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  event.preventDefault();
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    say("Copied");
  } catch {
    say("The browser does not allow copying here");
  }
});

// --- live: what changed is fetched anew ---

export function changed() {
  document.body.dispatchEvent(new CustomEvent("keepflow:changed"));
}

function live({ live: address, liveFrom }) {
  const refresh = calmly(changed, 250);
  let times = 0; // what happened before a stream was opened again is only found by asking
  new Stream(address, { change: refresh }, (status) => status === "open" && times++ && refresh(), liveFrom);
}

// --- the confirm form: the name must be typed, and a second click is no second press ---

document.addEventListener("input", (event) => {
  const field = event.target.closest("[data-must-equal]");
  if (!field) return;
  const right = field.value.trim() === field.dataset.mustEqual;
  field.setCustomValidity(right ? "" : `Type ${field.dataset.mustEqual}`);
});

document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-once]")) return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});

times();
setInterval(times, 1000);
for (const swapped of ["htmx:afterSwap", "htmx:oobAfterSwap"]) {
  document.addEventListener(swapped, (event) => times(event.target));
}
if (document.body.dataset.live) live(document.body.dataset);
