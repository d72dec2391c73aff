/* Numbers, times and values as text. A missing number is "-". */

import { Exact } from "./json.js";

const MISSING = "-";
const grouped = new Intl.NumberFormat("en");

/** Return a number with three significant digits, or a whole number with separators. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return MISSING;
  if (value === 0 || Math.abs(value) >= 100) return grouped.format(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

/** Return a duration, from seconds: microseconds below 1 ms, milliseconds below 1 s. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return MISSING;
  if (seconds === 0) return "0 ms";
  if (seconds < 0.001) return `${number(seconds * 1e6)} µs`;
  return seconds < 1 ? `${number(seconds * 1e3)} ms` : `${number(seconds)} s`;
}

/** Return a number of bytes, in units of 1024. */
export function bytes(value) {
  if (value === null || value === undefined) return MISSING;
  let place = 0;
  while (value >= 1024 && place < 4) {
    value /= 1024;
    place += 1;
  }
  return `${number(value)} ${["B", "KiB", "MiB", "GiB", "TiB"][place]}`;
}

/** Return a part of 1 as per cent. */
export const percent = (part) => (part === null ? MISSING : `${number(part * 100)} %`);

/** Return how long ago a moment was, from seconds: "2 d 3 h". */
export function age(seconds) {
  if (seconds === null) return MISSING;
  const units = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const place = units.findIndex(([size]) => seconds >= size);
  if (place < 0) return "0 s";
  const [size, unit] = units[place];
  const text = `${Math.floor(seconds / size)} ${unit}`;
  if (place > 1) return text;
  const [below, small] = units[place + 1];
  return `${text} ${Math.floor((seconds % size) / below)} ${small}`;
}

/** Return one word or another: counted(1, "row") is "1 row", counted(2, "row") is "2 rows". */
export const counted = (value, word) => `${grouped.format(value)} ${word}${value === 1 ? "" : "s"}`;

/** Return the name of a field as a label: "created_at" is "created at". */
export const label = (name) => name.replaceAll("_", " ");

/** Return a value of a row as text; a time in the local zone, to the minute. */
export function shown(value, kind) {
  if (value === null || value === undefined) return "";
  if (kind === "date-time") {
    const time = new Date(value);
    return Number.isNaN(time.valueOf()) ? String(value) : local(time);
  }
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "object" && !(value instanceof Exact)) return JSON.stringify(value);
  return String(value);
}

function local(time) {
  const two = (part) => String(part).padStart(2, "0");
  const day = [time.getFullYear(), two(time.getMonth() + 1), two(time.getDate())].join("-");
  return `${day} ${two(time.getHours())}:${two(time.getMinutes())}`;
}
