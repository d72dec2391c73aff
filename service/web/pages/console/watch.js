/* Scrapes /metrics every second, keeps five minutes, and knows whether the service answers. */

import * as api from "./api.js";
import { growth, parse } from "./metrics.js";

const PERIOD = 1000; // milliseconds between scrapes
const READY_PERIOD = 5000; // milliseconds between checks of the dependencies: each connects
export const KEPT = 301; // scrapes: the differences of five minutes

/**
 * The state of the service.
 *
 * Attributes:
 *   scrapes: `{at, samples}`, the oldest first, `at` in seconds; empty without metrics.
 *   refused: why there are no metrics, an error; else null.
 *   ready: the body of /health/ready; null while it is not known.
 *   downSince: a Date since which the service does not answer; null while it does.
 */
export class Watch extends EventTarget {
  scrapes = [];
  refused = null;
  ready = null;
  downSince = null;
  #readyAt = -Infinity;

  /** Look now and every second from now on, while the page is visible. */
  start() {
    this.#look();
    document.addEventListener("visibilitychange", () => this.#visible());
  }

  /** Forget the refusal of the last key, and look at once. */
  retry() {
    this.refused = null;
    this.#readyAt = -Infinity;
    this.#look();
  }

  #visible() {
    if (document.hidden) clearTimeout(this.timer);
    else this.#look();
  }

  async #look() {
    clearTimeout(this.timer);
    const turn = (this.turn = {});
    await this.#scrape();
    if (!this.downSince && performance.now() - this.#readyAt >= READY_PERIOD) await this.#check();
    if (this.turn !== turn) return; // another look has begun
    this.dispatchEvent(new Event("change"));
    if (!document.hidden) this.timer = setTimeout(() => this.#look(), PERIOD);
  }

  async #scrape() {
    try {
      const response = await api.send("GET", "/metrics", { signal: AbortSignal.timeout(5000) });
      const samples = parse(await response.text());
      this.refused = null;
      this.#keep({ at: performance.now() / 1000, samples });
      this.#answered();
    } catch (error) {
      if (!(error instanceof api.Refused)) return this.#silent();
      this.refused = error;
      this.scrapes = [];
      this.#answered();
    }
  }

  #keep(scrape) {
    const last = this.scrapes.at(-1);
    // Counters begin again with the service, so earlier ones must not be compared with them.
    if (last && isNewStart(last.samples, scrape.samples)) this.scrapes = [];
    this.scrapes = [...this.scrapes.slice(1 - KEPT), scrape];
  }

  async #check() {
    this.#readyAt = performance.now();
    try {
      this.ready = await api.json("GET", "/health/ready", { signal: AbortSignal.timeout(5000) });
    } catch (error) {
      // 503 has the same members.
      if (error instanceof api.Refused) this.ready = error.problem;
      else this.#silent();
    }
  }

  #silent() {
    if (this.downSince) return;
    this.downSince = new Date();
    this.ready = null;
    this.#readyAt = -Infinity;
    this.dispatchEvent(new Event("down"));
  }

  #answered() {
    if (!this.downSince) return;
    this.downSince = null;
    this.dispatchEvent(new Event("up"));
  }
}

/** Whether the service has started again. The counters of a worker that ended are kept. */
function isNewStart(earlier, later) {
  return growth(earlier, later, "http_request_duration_seconds_count") < 0;
}
