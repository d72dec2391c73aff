/* A form from the fields of a schema: it reads values, and shows errors at their fields. */

import { h } from "./dom.js";
import { Exact, parse, same } from "./json.js";
import * as words from "./words.js";

/** A value that can't be sent, such as "abc" for a number. The service refuses all other values. */
class Unreadable extends Error {}

let forms = 0;

/**
 * Inputs for some fields.
 *
 * Attributes:
 *   element: contains the inputs; put it into a form.
 */
export class Inputs {
  #inputs = new Map();
  #prefix = `form-${++forms}`;

  /**
   * @param fields - of a resource.
   * @param row - the values to begin with; without it, the defaults.
   */
  constructor(fields, row) {
    this.fields = fields;
    this.begin = row ?? Object.fromEntries(fields.map((one) => [one.name, one.default]));
    this.general = h("div", { class: "error", role: "alert", hidden: true });
    this.element = h(
      "div",
      { class: "fields" },
      this.general,
      fields.map((one) => this.#field(one, this.begin[one.name])),
    );
  }

  #field(field, value) {
    const id = `${this.#prefix}-${field.name}`;
    const attributes = {
      id,
      name: field.name,
      "aria-describedby": `${id}-hint ${id}-error`,
      "aria-required": field.required ? "true" : null,
      autocomplete: "off",
    };
    const input = makeInput(field, attributes, value);
    const error = h("p", { id: `${id}-error`, class: "error" });
    const title = [
      words.label(field.name),
      field.required ? h("span", { class: "muted" }, " required") : null,
    ];
    this.#inputs.set(field.name, { field, input, error, shown: textOf(input) });
    return h(
      "div",
      { class: `field ${field.kind}` },
      h("label", { for: id }, title),
      input,
      h("p", { id: `${id}-hint`, class: "hint" }, field.hint),
      error,
    );
  }

  /** Whether the user has changed anything. */
  get changed() {
    return [...this.#inputs.values()].some((one) => textOf(one.input) !== one.shown);
  }

  /**
   * Return the values of the fields that differ from the begin; null if one is unreadable, which is
   * shown at its field.
   */
  changes() {
    return this.#read((one) => textOf(one.input) !== one.shown);
  }

  /** Return the values of a new row: a field that is left empty takes its default. */
  values() {
    return this.#read((one) => textOf(one.input) !== "");
  }

  #read(wanted) {
    this.clear();
    const found = {};
    const errors = [];
    for (const [name, one] of this.#inputs) {
      if (!wanted(one)) continue;
      try {
        const value = valueOf(one.field, one.input);
        if (!same(value, this.begin[name])) found[name] = value;
      } catch (error) {
        if (!(error instanceof Unreadable)) throw error;
        errors.push({ field: name, message: error.message });
      }
    }
    if (errors.length === 0) return found;
    this.show("", errors);
    return null;
  }

  /**
   * Show errors at their fields and focus the first; the text is shown above the fields if an error
   * is of no field.
   */
  show(text, errors = []) {
    this.clear();
    let first = null;
    const others = [];
    for (const { field, message } of errors) {
      const one = this.#inputs.get(field);
      if (one === undefined) {
        others.push(`${field}: ${message}`);
        continue;
      }
      one.error.textContent = message;
      one.input.setAttribute("aria-invalid", "true");
      first ??= one.input;
    }
    if (first === null || others.length) {
      this.general.textContent = [text, ...others].filter(Boolean).join(" ");
      this.general.hidden = false;
    }
    first?.focus();
  }

  /** Remove all errors. */
  clear() {
    this.general.hidden = true;
    for (const { input, error } of this.#inputs.values()) {
      error.textContent = "";
      input.removeAttribute("aria-invalid");
    }
  }
}

function makeInput(field, attributes, value) {
  if (field.kind === "boolean" && !field.nullable) {
    return h("input", { ...attributes, type: "checkbox", checked: value === true });
  }
  if (field.kind === "boolean" || field.kind === "enum") {
    return choice(field, attributes, value);
  }
  const text = value === null || value === undefined ? "" : written(field, value);
  if (field.kind === "long" || field.kind === "json") {
    return h("textarea", { ...attributes, rows: 3 }, text);
  }
  const more = {
    number: { inputmode: "decimal" },
    integer: { inputmode: "numeric" },
    "date-time": { placeholder: "2026-11-26T09:00:00Z" },
  }[field.kind];
  return h("input", { ...attributes, type: "text", value: text, ...more });
}

/** Return a select for a field with options, the empty one for null or for "not set". */
export function choice(field, attributes, value, empty = "") {
  const options = field.kind === "boolean" ? ["true", "false"] : field.options;
  const withEmpty = empty !== "" || field.nullable || value === undefined;
  return h(
    "select",
    attributes,
    withEmpty ? h("option", { value: "" }, empty) : null,
    options.map((one) =>
      h("option", { value: one, selected: String(value) === one }, optionText(field, one)),
    ),
  );
}

const optionText = (field, one) =>
  field.kind === "boolean" ? { true: "yes", false: "no" }[one] : one;

function written(field, value) {
  return field.kind === "json" ? JSON.stringify(value, null, 1) : String(value);
}

const textOf = (input) => (input.type === "checkbox" ? String(input.checked) : input.value);

function valueOf(field, input) {
  if (input.type === "checkbox") return input.checked;
  const text = input.value;
  const isText = field.kind === "text" || field.kind === "long";
  if (text === "") return isText && !field.nullable ? "" : null;
  if (field.kind === "boolean") return text === "true";
  if (field.kind === "integer" || field.kind === "number") {
    if (!/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text.trim())) {
      throw new Unreadable("must be a number in digits, such as 29.99");
    }
    return new Exact(text.trim()); // with all digits that were typed
  }
  if (field.kind !== "json") return text;
  try {
    return parse(text);
  } catch (error) {
    throw new Unreadable(`is not JSON: ${error.message}`);
  }
}
