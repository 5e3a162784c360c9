// The log of one run: every line once, in blocks of which only those near the window are in the page.

import { Painter } from "./ansi.js";
import { Stream, calmly } from "./stream.js";
import { changed } from "./page.js";

const BLOCK = 500; // lines
const LINE = 20; // pixels of an unwrapped line; what a block not yet drawn is taken to need
const root = document.getElementById("log");
const body = root.querySelector(".log-body");
const status = root.querySelector(".status");
const follow = document.getElementById("follow");
const bytes = new TextEncoder();

const lines = []; // every line: {number, text, fence, offset, steps, element}
const blocks = []; // {element, first, count, drawn, ansi}
const steps = new Map(); // "fence:index" → the newest step event
const parts = new Map(); // "fence:index" → the step's heading
let painter = new Painter();
let open = null; // the last line, as long as its end has not come
let group = null; // the line that opened the group that new lines belong to
let arrived = [];

// --- taking ---

function take(piece) {
  arrived.push(piece);
  if (arrived.length === 1) requestAnimationFrame(flush);
}

function flush() {
  const pieces = arrived;
  arrived = [];
  for (const piece of pieces) takePiece(piece);
  if (follow.checked) toEnd();
  toWanted();
}

function takePiece({ fence, from, text }) {
  if (open && open.fence !== fence) open = null;
  let offset = from;
  for (const part of text.split(/(?<=\n)/)) {
    if (open) extend(open, part);
    else open = add(fence, offset, part);
    offset += bytes.encode(part).length;
    if (part.endsWith("\n")) open = null;
  }
}

function add(fence, offset, text) {
  const previous = lines.at(-1);
  if (previous && previous.fence !== fence) {
    painter = new Painter();
    group = null;
  }
  const line = { number: lines.length + 1, text: "", fence, offset, steps: [], element: null, group };
  lines.push(line);
  let block = blocks.at(-1);
  if (!block || block.count === BLOCK) block = newBlock(line);
  block.count += 1;
  for (const [key, step] of steps) {
    if (!parts.has(key) && step.fence === fence && step.from <= offset) claim(key, step, line);
  }
  extend(line, text, block);
  return line;
}

function extend(line, text, block = blocks.at(-1)) {
  line.text += text;
  if (line.text.endsWith("\n")) bracket(line);
  block.element.style.containIntrinsicBlockSize = `auto ${block.count * LINE}px`;
  if (block.drawn) draw(line, block);
  else block.element.style.minHeight = `${block.count * LINE}px`;
  // The colours a line ends with are where the next one begins, drawn or not.
  if (line.text.endsWith("\n") && !block.drawn && line.text.includes("\x1b")) painter.paint(shown(line), new DocumentFragment());
}

// `::group::NAME` and `::endgroup::` fold what stands between them; they change how a log looks, never what it is.
function bracket(line) {
  line.opens = line.text.startsWith("::group::");
  line.ends = line.text.startsWith("::endgroup::");
  if (line.opens) line.group = null;
  if (line.opens || line.ends) group = line.opens ? line : null;
}

// A line that was written over (progress bars) shows what was written last.
function shown(line) {
  const text = line.text.replace(/\r?\n$/, "").replace(/\r+$/, "");
  return text.slice(text.lastIndexOf("\r") + 1).replace(line.opens ? /^::group::/ : /^(?!)/, "");
}

// --- drawing ---

const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const block = blocks[entry.target.dataset.index];
      if (entry.isIntersecting && !block.drawn) drawBlock(block);
      else if (!entry.isIntersecting && block.drawn && block !== blocks.at(-1)) dropBlock(block);
    }
    if (follow.checked) toEnd();
  },
  { root: body, rootMargin: "1500px 0px" },
);

function newBlock(line) {
  const element = document.createElement("div");
  element.className = "log-block";
  element.dataset.index = blocks.length;
  const block = { element, first: line.number - 1, count: 0, drawn: blocks.length === 0, ansi: state(painter) };
  blocks.push(block);
  body.append(element);
  watcher.observe(element);
  return block;
}

function state({ bold, faint, italic, underline, fg, bg }) {
  return { bold, faint, italic, underline, fg, bg };
}

function drawBlock(block) {
  const live = painter;
  painter = Object.assign(new Painter(), block.ansi);
  block.drawn = true;
  for (const line of lines.slice(block.first, block.first + block.count)) {
    if (line.fence !== lines[line.number - 2]?.fence) painter = new Painter();
    draw(line, block);
  }
  block.element.style.minHeight = "";
  if (block !== blocks.at(-1)) painter = live;
}

function dropBlock(block) {
  block.element.style.minHeight = `${block.element.offsetHeight}px`;
  for (const line of lines.slice(block.first, block.first + block.count)) line.element = null;
  block.element.replaceChildren();
  block.drawn = false;
}

function draw(line, block) {
  const before = state(painter);
  const text = document.createElement("span");
  painter.paint(shown(line), text);
  if (!line.text.endsWith("\n")) Object.assign(painter, before); // it is painted again when more of it comes
  if (line.element) {
    line.element.lastChild.replaceWith(text);
    return fold(line);
  }
  const number = document.createElement("a");
  number.href = `#L${line.number}`;
  number.textContent = line.number;
  line.element = document.createElement("div");
  line.element.className = "ln";
  line.element.append(number, text);
  block.element.append(...line.steps.map((key) => parts.get(key)), line.element);
  mark(line);
  fold(line);
}

// --- groups ---

function fold(line) {
  line.element.classList.toggle("opens", Boolean(line.opens));
  line.element.hidden = Boolean(line.ends || line.group?.closed);
  if (!line.opens) return;
  const name = line.element.lastChild;
  name.setAttribute("role", "button");
  name.setAttribute("aria-expanded", String(!line.closed));
  name.tabIndex = 0;
}

function toggle(line) {
  line.closed = !line.closed;
  fold(line);
  for (let at = line.number; lines[at] && (lines[at].group === line || lines[at].ends); at++) {
    if (lines[at].element) fold(lines[at]);
    if (lines[at].ends) break;
  }
}

for (const kind of ["click", "keydown"]) {
  body.addEventListener(kind, (event) => {
    const name = event.target.closest(".ln.opens > [role=button]");
    if (!name || (kind === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    toggle(lines[Number(name.previousSibling.textContent) - 1]);
  });
}

// --- steps ---

function takeStep(step) {
  const key = `${step.fence}:${step.index}`;
  steps.set(key, step);
  if (parts.has(key)) return heading(parts.get(key), step);
  const line = lines.find((one) => one.fence === step.fence && one.offset >= step.from);
  if (line) claim(key, step, line);
}

function claim(key, step, line) {
  const part = document.createElement("div");
  part.className = "log-part";
  heading(part, step);
  parts.set(key, part);
  line.steps.push(key);
  line.element?.before(part);
}

function heading(part, step) {
  const name = document.createElement("b");
  name.textContent = step.name;
  const end = document.createElement("span");
  end.className = "end";
  const seconds = step.finished_at ? ` in ${((step.finished_at - step.started_at) / 1e6).toFixed(1)} s` : "";
  end.textContent = `${step.state}${step.exit_code ? `, exit ${step.exit_code}` : ""}${seconds}`;
  part.replaceChildren(name, end);
}

// --- where to look ---

function toEnd() {
  body.scrollTop = body.scrollHeight;
}

let wanted = target();

function target() {
  const range = /^#L(\d+)(?:-L(\d+))?$/.exec(location.hash);
  if (range) return { first: Number(range[1]), last: Number(range[2] ?? range[1]) };
  const step = /^#step-(\d+)-(\d+)$/.exec(location.hash);
  return step ? { step: `${step[1]}:${step[2]}` } : null;
}

function toWanted() {
  if (!wanted) return;
  const line = wanted.step ? lines.find((one) => one.steps.includes(wanted.step)) : lines[wanted.first - 1];
  if (!line) return;
  reveal(line, wanted.step ? "start" : "center");
  wanted = null;
}

function reveal(line, place) {
  follow.checked = false;
  if (line.group?.closed) toggle(line.group);
  const block = blocks[Math.floor((line.number - 1) / BLOCK)];
  if (!block.drawn) drawBlock(block);
  const element = place === "start" && line.steps.length ? parts.get(line.steps[0]) : line.element;
  const [seen, window] = [element.getBoundingClientRect(), body.getBoundingClientRect()];
  if (place === "center" && seen.top >= window.top && seen.bottom <= window.bottom) return;
  const middle = place === "start" ? 0 : place === "end" ? body.clientHeight - 60 : body.clientHeight / 2;
  body.scrollTop += seen.top - window.top - middle;
}

let marked = target();

function mark(line) {
  const on = marked?.first && line.number >= marked.first && line.number <= marked.last;
  line.element.classList.toggle("marked", Boolean(on));
}

addEventListener("hashchange", () => {
  wanted = marked = target();
  for (const line of lines) if (line.element) mark(line);
  if (wanted) root.scrollIntoView({ block: "nearest" });
  toWanted();
});

body.addEventListener("click", (event) => {
  const link = event.target.closest(".ln > a");
  if (!link || !event.shiftKey || !marked?.first) return;
  event.preventDefault();
  const other = Number(link.textContent);
  location.hash = `#L${Math.min(marked.first, other)}-L${Math.max(marked.first, other)}`;
});

// Whoever scrolls up, by whatever means, wants to read in peace; a log that grows never scrolls up by itself.
let lastTop = 0;
body.addEventListener("scroll", () => {
  const atEnd = body.scrollTop + body.clientHeight >= body.scrollHeight - 2 * LINE;
  if (!atEnd && body.scrollTop < lastTop) follow.checked = false;
  lastTop = body.scrollTop;
}, { passive: true });
follow.addEventListener("change", () => follow.checked && toEnd());

// A failed run opens where it failed.
function toFailure() {
  const failed = [...steps.values()].find((step) => step.state === "failed");
  if (!failed || location.hash) return;
  const line = lines.findLast((one) => one.fence === failed.fence && (failed.to === null || one.offset < failed.to));
  if (line) reveal(line, "end");
}

// --- live ---

const ended = "final" in root.dataset; // nothing more comes, the page was drawn with all of it
const refresh = ended ? () => {} : calmly(changed, 200);
const stream = new Stream(
  root.dataset.stream,
  {
    log: take,
    step(step) {
      takeStep(step);
      refresh();
    },
    state: () => refresh(),
    end(outcome) {
      stream.stop();
      const some = lines.length || arrived.length;
      status.textContent = some ? "Complete" : "Nothing was written to a log";
      root.classList.toggle("none", !some);
      refresh();
      if (outcome.state === "failed") requestAnimationFrame(() => requestAnimationFrame(toFailure));
    },
  },
  (word) => {
    status.textContent = { open: "Live", waiting: "Connection lost, trying again…", refused: "The log cannot be read; reload the page" }[word];
  },
);
