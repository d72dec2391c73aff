/* Calls of the API, and its errors in words. */

import { parse, stringify } from "./json.js";
import * as key from "./key.js";

/** The path in front of all paths of the API: not empty behind `--root-path`. */
export const root = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");

/** A response with an error status; `problem` is its problem document (RFC 9457). */
export class Refused extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail ?? problem.title ?? `status ${status}`);
    this.status = status;
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

/** There was no response: the service is not running, or the network is broken. */
export class Unreachable extends Error {
  constructor() {
    super("The service does not answer. Is it running?");
  }
}

/** Return the URL of a path of the API. Parameters without a value are left out. */
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  return root + path + (given.length ? `?${new URLSearchParams(given)}` : "");
}

/** Return the headers of a request: `more`, and the key if there is one. */
export function headers(more = {}) {
  return key.current() ? { ...more, Authorization: `Bearer ${key.current()}` } : more;
}

/**
 * Send a request, and return its response if the status is below 400.
 *
 * @param options - `query`, `body` (a value that is sent as JSON), `headers`, `signal`.
 * @throws Refused - the service answers with an error.
 * @throws Unreachable - it does not answer.
 * @throws DOMException - the signal has aborted the request.
 */
export async function send(method, path, { query, body, headers: more, signal } = {}) {
  const json = body === undefined ? {} : { "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(address(path, query), {
      method,
      signal,
      headers: headers({ ...json, ...more }),
      body: body === undefined ? undefined : stringify(body),
      // It also sends Cache-Control: no-cache, so the answer is the state in the database: after a
      // write, another worker may have the old row in its cache for some milliseconds.
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable();
  }
  if (response.status < 400) return response;
  throw refusal(response.status, await response.text(), response.headers.get("Retry-After"));
}

/** Return the error of a response. Its body may also be that of a proxy, which is no JSON. */
export function refusal(status, text, retryAfter) {
  let problem;
  try {
    problem = parse(text);
  } catch {
    problem = null;
  }
  if (problem === null || typeof problem !== "object") problem = { title: `status ${status}` };
  return new Refused(status, problem, retryAfter);
}

/** Return the body of a response to `send`. */
export async function json(method, path, options) {
  const text = await (await send(method, path, options)).text();
  return text === "" ? null : parse(text);
}

/** Return a row and its entity tag, which `If-Match` takes. */
export async function row(path, options) {
  const response = await send("GET", path, options);
  return { row: parse(await response.text()), etag: tag(response) };
}

/** Return the entity tag of a response, for If-Match: strong, though a compressed one is weak. */
export const tag = (response) => response.headers.get("ETag")?.replace(/^W\//, "") ?? null;

/** Say in words what an error means and what to do. */
export function words(error) {
  if (!(error instanceof Refused)) return error.message;
  const { status, message, retryAfter } = error;
  const later = retryAfter ? ` Try again in ${seconds(retryAfter)}.` : "";
  const text = {
    401: key.current()
      ? "The service refuses this key: it is wrong, expired or revoked. Enter another one."
      : "The service needs an API key. Enter it with the API key button.",
    403: `This key may not do that: ${message}.`,
    404: `Not found: ${message}.`,
    412: "Another client has changed it since it was read.",
    413: `Too large: ${message}.`,
    429: `Too many requests.${later}`,
    503: `The service can't answer now: ${message}.${later}`,
    504: `The database took too long: ${message}.${later}`,
  }[status];
  const told = text ?? `${capital(message)}.`;
  const id = status >= 500 && error.problem.request_id;
  return id ? `${told} Request id: ${id}` : told;
}

function seconds(text) {
  return /^\d+$/.test(text) ? `${text} ${text === "1" ? "second" : "seconds"}` : text;
}

/** Return a text whose first letter is a capital. */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
