// What a refresh must not take away: the focus, what was typed, and which details are open. One that brings nothing new does nothing.

const answers = new Map(); // address → the last answer to a refresh
const kept = new Map(); // id of what is swapped → what was there

function name(element) {
  const own = element.getAttribute("href") ?? element.name ?? element.dataset.copy ?? "";
  return `${element.tagName} ${own || element.textContent.trim()}`;
}

function typed(root) {
  return root.querySelectorAll("form textarea, form input[type=text]");
}

function place(field) {
  return `${field.form.getAttribute("action")} ${field.name}`;
}

function remember(target) {
  if (!target?.id) return;
  const focused = target.contains(document.activeElement) ? name(document.activeElement) : null;
  const opened = new Map();
  for (const details of target.querySelectorAll("details")) opened.set(name(details.firstElementChild), details.open);
  const texts = new Map();
  for (const field of typed(target)) if (field.value !== field.defaultValue) texts.set(place(field), field.value);
  kept.set(target.id, { focused, opened, texts });
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
  for (const field of typed(now)) {
    const text = before.texts.get(place(field));
    if (text !== undefined) field.value = text;
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
