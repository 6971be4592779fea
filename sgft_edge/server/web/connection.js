// Whether the server is there: what it offers and how it fares, looked after while the page is visible.

import { health, models } from "./api.js";

const EVERY = 5_000; // milliseconds between two looks at the server's health
const FIRST_RETRY = 1_000; // milliseconds; doubled up to EVERY while the server does not answer

/**
 * Calls `changed` with {state, models, health, error} whenever that is news. `state` is "connecting", "ready",
 * "unreachable", "key" (the server wants one) or "refused".
 */
export class Connection {
  constructor(key, changed) {
    this.key = key;
    this.changed = changed;
    this.state = "connecting";
    this.models = [];
    this.health = null;
    this.error = null;
    this.wait = FIRST_RETRY;
    this.timer = 0;
    this.looking = 0;
    document.addEventListener("visibilitychange", () => !document.hidden && this.#later(this.#restOfPause()));
    addEventListener("online", () => this.look());
  }

  /** Look now: at the server's health, and at its models unless they were just known. */
  async look() {
    clearTimeout(this.timer);
    const mine = ++this.looking; // a later look makes this one stale
    this.looked = Date.now();
    try {
      const found = this.state === "ready" ? this.models : await models(this.key());
      const fares = await health();
      if (mine !== this.looking) return;
      Object.assign(this, { models: found, health: fares, state: "ready", error: null, wait: FIRST_RETRY });
    } catch (error) {
      if (mine !== this.looking) return;
      const state = error.status === 401 ? "key" : error.code === "unreachable" ? "unreachable" : "refused";
      Object.assign(this, { state, error, health: null });
    }
    this.changed(this);
    if (this.state === "ready") this.#later(EVERY);
    else if (this.state !== "key") {
      this.#later(this.wait);
      this.wait = Math.min(this.wait * 2, EVERY);
    }
  }

  /** Look at everything anew, with another key. */
  renew() {
    this.state = "connecting";
    this.changed(this);
    return this.look();
  }

  #restOfPause() {
    return Math.max(0, this.looked + EVERY - Date.now());
  }

  #later(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => !document.hidden && this.look(), milliseconds);
  }
}
