// A WebSocket that takes one picture at a time and is opened again when it breaks.

const WAITS = [500, 1000, 2000, 5000, 10000];  // ms
const IDLE = 1001;  // the server ends a connection on which nothing comes; it is opened again when it is needed
const REASONS = { 1009: "The picture is too large for the server.", 1006: "The server does not answer." };

export class Link {
  #socket = null;
  #waiting = null;  // who waits for the answer to the picture that was sent
  #ended = false;
  #tries = 0;

  // `told` is called with a sentence when the connection breaks, and with "" when it is there again.
  constructor(apart, told) {
    this.told = told;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.address = `${scheme}://${location.host}/faces?apart=${apart}`;
    this.#open();
  }

  get ready() {
    if (!this.#socket) this.#open();
    return this.#socket?.readyState === WebSocket.OPEN && !this.#waiting;
  }

  // Send a picture; the answer, or null where the connection broke before it came.
  ask(blob) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return Promise.resolve(null);
    return new Promise((resolve) => {
      this.#waiting = resolve;
      this.#socket.send(blob);
    });
  }

  close() {
    this.#ended = true;
    this.#socket?.close();
  }

  #open() {
    if (this.#ended) return;
    let said = "";
    this.#socket = new WebSocket(this.address);
    this.#socket.onmessage = (event) => {
      const answer = JSON.parse(event.data);
      said = answer.error ?? "";
      if (!said) this.#tries = 0;
      this.#answer(answer);
    };
    this.#socket.onopen = () => this.told("");
    this.#socket.onclose = (event) => {
      this.#answer(null);
      if (event.code === IDLE) this.#socket = null;
      if (this.#ended || event.code === IDLE) return;
      const why = event.reason || said || REASONS[event.code] || `The connection ended (${event.code}).`;
      this.told(`${REASONS[event.code] ?? why} Trying again.`);
      setTimeout(() => this.#open(), WAITS[Math.min(this.#tries++, WAITS.length - 1)]);
    };
  }

  #answer(answer) {
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.(answer);
  }
}
