// One line of a log as text nodes and spans: ansi_up reads the colours, nothing is ever parsed as HTML.

import { AnsiUp } from "./vendor/ansi_up-6.0.6.js";

const NOT_SHOWN = /[\u0000-\u0008\u000b\u000c\u000e-\u001a\u001c-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

export class Painter extends AnsiUp {
  constructor() {
    super();
    this.pieces = [];
  }

  // ansi_up asks for HTML here; we keep the fragment itself and give it nothing.
  transform_to_html(fragment) {
    if (fragment.text) this.pieces.push(fragment);
    return "";
  }

  // A link in a log is hostile until proven otherwise: its text is shown, its address is not followed.
  process_hyperlink(packet) {
    this.pieces.push(this.with_state(packet));
    return "";
  }

  paint(line, into) {
    this.pieces = [];
    this.ansi_to_html(`${line}\n`); // the line end flushes sequences that were never finished
    this._buffer = "";
    for (const piece of this.pieces) {
      const text = piece.text.replace(/\n$/, "").replace(NOT_SHOWN, "\ufffd");
      if (text) into.append(styled(piece, text));
    }
  }
}

function styled(piece, text) {
  if (!piece.bold && !piece.faint && !piece.italic && !piece.underline && !piece.fg && !piece.bg) {
    return document.createTextNode(text);
  }
  const span = document.createElement("span");
  span.textContent = text;
  for (const [name, on] of [["b", piece.bold], ["f", piece.faint], ["i", piece.italic], ["u", piece.underline]]) {
    if (on) span.classList.add(name);
  }
  colour(span, piece.fg, "fg", "color");
  colour(span, piece.bg, "bg", "backgroundColor");
  return span;
}

function colour(span, wanted, suffix, property) {
  if (!wanted) return;
  if (wanted.class_name === "truecolor") span.style[property] = `rgb(${wanted.rgb.map(Number).join(",")})`;
  else span.classList.add(`${wanted.class_name}-${suffix}`);
}
