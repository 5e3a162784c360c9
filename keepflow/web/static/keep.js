// What a refresh must not take away: the focus, and which details are open. One that brings nothing new does nothing.

const answers = new Map(); // address → the last answer to a refresh
const kept = new Map(); // id of what is swapped → what was there

function name(element) {
  const own = element.getAttribute("href") ?? element.name ?? element.dataset.copy ?? "";
  return `${element.tagName} ${own || element.textContent.trim()}`;
}

function remember(target) {
  if (!target?.id) return;
  const focused = target.contains(document.activeElement) ? name(document.activeElement) : null;
  const opened = new Map();
  for (const details of target.querySelectorAll("details")) opened.set(name(details.firstElementChild), details.open);
  kept.set(target.id, { focused, opened });
}

function restore(target) {
  const before = kept.get(target?.id);
  const now = before && document.getElementById(target.id);
  if (!now) return;
  kept.delete(target.id);
  for (const details of now.querySelectorAll("details")) {
    const open = before.opened.get(name(details.firstElementChild));
    if (open !== undefined) details.open = open;
  }
  if (before.focused === null || now.contains(document.activeElement)) return;
  const same = [...now.querySelectorAll("a, button, input, select, textarea, summary, [tabindex]")];
  same.find((element) => name(element) === before.focused)?.focus({ preventScroll: true });
}

document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const { path, triggeringEvent } = detail.requestConfig;
  if (triggeringEvent?.type !== "keepflow:changed") return;
  const text = detail.xhr.responseText;
  if (answers.get(path) === text) detail.shouldSwap = false;
  else remember(detail.target);
  answers.set(path, text);
});
document.addEventListener("htmx:oobBeforeSwap", ({ detail }) => remember(detail.target));
document.addEventListener("htmx:afterSwap", ({ detail }) => restore(detail.target));
document.addEventListener("htmx:oobAfterSwap", ({ detail }) => restore(detail.target));
