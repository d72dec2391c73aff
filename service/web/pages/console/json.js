/* JSON with exact numbers. A JavaScript number holds 53 bits, an id 63, and a decimal any number of
   digits: a number that JavaScript would change is kept as its text. */

/** A number that JavaScript can't hold, as its text. */
export class Exact {
  constructor(text) {
    this.text = text;
  }
  toString() {
    return this.text;
  }
  /** For JSON.stringify. Every browser that shows the source, see `parse`, has JSON.rawJSON. */
  toJSON() {
    return JSON.rawJSON(this.text);
  }
}

/** Return the value of a JSON text. Old browsers do not show the source, and round numbers. */
export function parse(text) {
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && context?.source !== undefined && !holds(value, context.source)
      ? new Exact(context.source)
      : value,
  );
}

function holds(value, source) {
  return String(value) === source || (/^-?\d{1,15}(\.0+)?$/.test(source) && Number.isFinite(value));
}

/** Return the JSON text of a value. */
export function stringify(value) {
  if (value instanceof Exact) return value.text;
  if (Array.isArray(value)) return `[${value.map(stringify).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const members = Object.entries(value).filter(([, one]) => one !== undefined);
  return `{${members.map(([name, one]) => `${JSON.stringify(name)}:${stringify(one)}`).join(",")}}`;
}

/** Whether two JSON values are equal. */
export const same = (one, other) => stringify(one ?? null) === stringify(other ?? null);
