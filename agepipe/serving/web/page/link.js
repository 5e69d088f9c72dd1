// A WebSocket that sends one picture at a time and reconnects after an interruption.

const WAITS = [500, 1000, 2000, 5000, 10000];  // ms
const IDLE = 1001;  // the server closes an idle connection; it is reopened when it is needed
const REASONS = { 1009: "The picture is too large for the server.", 1006: "The server does not respond." };

export class Link {
  #socket = null;
  #resolve = null;  // resolves the promise of the picture that was sent
  #ended = false;
  #tries = 0;

  // `onStatus` is called with a sentence when the connection breaks, and with "" when it is open again.
  constructor(independent, onStatus) {
    this.onStatus = onStatus;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.address = `${scheme}://${location.host}/faces?apart=${independent}`;
    this.#open();
  }

  get ready() {
    if (!this.#socket) this.#open();
    return this.#socket?.readyState === WebSocket.OPEN && !this.#resolve;
  }

  // Send a picture; resolves to the answer, or to null if the connection broke.
  ask(blob) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return Promise.resolve(null);
    return new Promise((resolve) => {
      this.#resolve = resolve;
      this.#socket.send(blob);
    });
  }

  close() {
    this.#ended = true;
    this.#socket?.close();
  }

  #open() {
    if (this.#ended) return;
    let error = "";
    this.#socket = new WebSocket(this.address);
    this.#socket.onmessage = (event) => {
      const answer = JSON.parse(event.data);
      error = answer.error ?? "";
      if (!error) this.#tries = 0;
      this.#answer(answer);
    };
    this.#socket.onopen = () => this.onStatus("");
    this.#socket.onclose = (event) => {
      this.#answer(null);
      if (event.code === IDLE) this.#socket = null;
      if (this.#ended || event.code === IDLE) return;
      const why = event.reason || error || REASONS[event.code] || `The connection ended (${event.code}).`;
      this.onStatus(`${REASONS[event.code] ?? why} Reconnecting.`);
      setTimeout(() => this.#open(), WAITS[Math.min(this.#tries++, WAITS.length - 1)]);
    };
  }

  #answer(answer) {
    const resolve = this.#resolve;
    this.#resolve = null;
    resolve?.(answer);
  }
}
