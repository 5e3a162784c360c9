// Server-sent events over fetch: closed while the tab is hidden, resumed from the last id, so nothing is missed or doubled.
// (EventSource cannot be told where to go on, and browsers allow only six open streams per host.)

export class Stream {
  // `on` maps event names to functions of the event's data; `status` hears "open", "waiting" and "refused"; `lastId` is
  // of the newest event that the page knows of.
  constructor(address, on, status = () => {}, lastId = "") {
    Object.assign(this, { address, on, status, lastId, over: false, controller: null, retry: 0 });
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.resume()));
    addEventListener("pagehide", () => this.pause());
    if (!document.hidden) this.resume();
  }

  stop() {
    this.over = true;
    this.pause();
  }

  pause() {
    clearTimeout(this.timer);
    this.controller?.abort();
    this.controller = null;
  }

  resume() {
    if (this.over || this.controller) return;
    this.controller = new AbortController();
    this.read(this.controller);
  }

  async read(controller) {
    const headers = { Accept: "text/event-stream" };
    if (this.lastId) headers["Last-Event-ID"] = this.lastId;
    try {
      const answer = await fetch(this.address, { headers, signal: controller.signal, cache: "no-store" });
      if (answer.status >= 400 && answer.status < 500 && answer.status !== 429) {
        this.over = true;
        return this.status("refused");
      }
      if (answer.ok) {
        this.status("open");
        await this.events(answer.body.pipeThrough(new TextDecoderStream()).getReader(), controller);
      }
    } catch {
      // A cut connection is an ordinary end of a stream: below decides about the next.
    }
    if (controller === this.controller) this.again();
  }

  again() {
    this.controller = null;
    if (this.over) return;
    this.status("waiting");
    this.retry = Math.min(this.retry + 1, 6);
    this.timer = setTimeout(() => document.hidden || this.resume(), 250 + Math.random() * 500 * 2 ** this.retry);
  }

  async events(reader, controller) {
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done || controller !== this.controller) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) this.take(block);
    }
  }

  take(block) {
    let name = "message";
    let data = "";
    for (const line of block.split("\n")) {
      const colon = line.indexOf(": ");
      const [field, value] = [line.slice(0, colon), line.slice(colon + 2)];
      if (field === "id") this.lastId = value;
      if (field === "event") name = value;
      if (field === "data") data += value;
    }
    if (!data) return;
    this.retry = 0;
    this.on[name]?.(JSON.parse(data));
  }
}

// Return a function that acts once, a moment after the first of many calls.
export function calmly(act, wait) {
  let timer = 0;
  return () => {
    timer ||= setTimeout(() => {
      timer = 0;
      act();
    }, wait);
  };
}
