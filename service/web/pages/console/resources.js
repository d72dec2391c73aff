/* Finds the resources of the application in its OpenAPI document, with their fields. */

const NOT_FILTERS = new Set(["page", "per_page", "cursor", "sort", "total", "include"]);
// From this length on, a text gets several lines. A text without a limit gets them too.
const LONG = 256;

/**
 * Return the resources of a document.
 *
 * A resource is a path whose GET has the parameters of pages, with a path `/{id}` below it. Each is
 * `{name, title, one, path, columns, sorts, filters, newFields, changeFields, can}`. `one` is what a
 * row is called, and `can` says which operations there are.
 */
export function resources(document) {
  const reader = new Reader(document);
  return Object.entries(document.paths)
    .filter(([path, one]) => !path.includes("{") && reader.isList(one.get))
    .filter(([path]) => document.paths[`${path}/{id}`]?.get)
    .map(([path]) => resource(reader, document, path));
}

function resource(reader, document, path) {
  const many = document.paths[path];
  const one = document.paths[`${path}/{id}`];
  const files = (name) => document.paths[`${path}/${name}`] ?? {};
  const parameters = reader.parameters(many.get);
  const columns = reader.fields(reader.rowSchema(many.get));
  const removal = one.delete ? reader.parameters(one.delete).map((it) => it.name) : [];
  const sorts = parameters.find((it) => it.name === "sort")?.field.options ?? [];
  return {
    name: path.slice(1),
    title: path.slice(1).replace(/[_/-]/g, " "),
    one: reader.rowName(many, one),
    path,
    columns: columns.filter((it) => it.required), // others come only with `include`
    sorts: new Set(sorts),
    filters: parameters.filter((it) => !NOT_FILTERS.has(it.name)).map((it) => it.field),
    newFields: many.post ? reader.fields(reader.body(many.post)) : [],
    changeFields: one.patch ? reader.fields(reader.body(one.patch)) : [],
    can: {
      create: Boolean(many.post),
      change: Boolean(one.patch),
      remove: Boolean(one.delete),
      softDelete: removal.includes("permanent"),
      import: Boolean(files("import").post),
      export: Boolean(files("export").get),
    },
  };
}

class Reader {
  constructor(document) {
    this.document = document;
  }

  /** Follow references, and leave out the null of a nullable type. */
  resolve(schema) {
    let found = schema ?? {};
    let nullable = false;
    let more = {};
    for (;;) {
      const choices =
        found.anyOf ?? found.oneOf ?? (found.allOf?.length === 1 ? found.allOf : null);
      if (found.$ref) {
        more = { ...found, ...more }; // what stands beside a reference, such as a default
        found = this.at(found.$ref);
      } else if (choices) {
        const others = choices.filter((one) => one.type !== "null");
        nullable ||= others.length < choices.length;
        more = { ...found, ...more };
        if (others.length !== 1) break;
        [found] = others;
      } else break;
    }
    if (Array.isArray(found.type)) {
      nullable ||= found.type.includes("null");
      found = { ...found, type: found.type.find((one) => one !== "null") };
    }
    const { $ref, anyOf, oneOf, allOf, ...beside } = more;
    return { schema: { ...found, ...beside }, nullable };
  }

  at(reference) {
    return reference
      .slice(2)
      .split("/")
      .reduce(
        (place, name) => place[name.replaceAll("~1", "/").replaceAll("~0", "~")],
        this.document,
      );
  }

  isList(operation) {
    if (!operation) return false;
    const names = this.parameters(operation).map((one) => one.name);
    return names.includes("page") && names.includes("per_page");
  }

  /** Return the parameters of the query, as `{name, field}`. */
  parameters(operation) {
    return (operation.parameters ?? [])
      .map((one) => (one.$ref ? this.at(one.$ref) : one))
      .filter((one) => one.in === "query")
      .map((one) => ({ name: one.name, field: this.field(one.name, one.schema, one) }));
  }

  /** Return the schema of the body of an operation. */
  body(operation) {
    const body = operation.requestBody;
    return (body.$ref ? this.at(body.$ref) : body).content["application/json"].schema;
  }

  /** Return the schema of a row in a page: pages by number and by cursor have the same rows. */
  rowSchema(operation) {
    const response = operation.responses["200"];
    const { content } = response.$ref ? this.at(response.$ref) : response;
    let page = content["application/json"].schema;
    while (page.$ref || page.anyOf || page.oneOf) {
      page = page.$ref ? this.at(page.$ref) : (page.anyOf ?? page.oneOf)[0];
    }
    return page.properties.items.items;
  }

  /** Return what a row is called: the schema of a new row, NewItem, without "New". */
  rowName(many, one) {
    const schema = many.post ? this.body(many.post) : one.patch ? this.body(one.patch) : {};
    const name = schema.title ?? schema.$ref?.split("/").at(-1) ?? "Row";
    return name.replace(/^New|Change$/g, "");
  }

  /** Return the fields of an object. */
  fields(schema) {
    const { schema: found } = this.resolve(schema);
    const required = new Set(found.required ?? []);
    return Object.entries(found.properties ?? {}).map(([name, one]) =>
      this.field(name, one, { required: required.has(name) }),
    );
  }

  /**
   * Return a field: its name, kind, limits and options.
   *
   * The kind is text, long, integer, number, boolean, enum, date-time, or json for any other.
   */
  field(name, schema, { required = false, description } = {}) {
    const { schema: found, nullable } = this.resolve(schema);
    return {
      name,
      kind: kindOf(found),
      nullable,
      required,
      options: found.enum,
      default: found.default,
      hint: hint(found, description),
    };
  }
}

function kindOf(schema) {
  if (schema.enum) return "enum";
  if (schema.type === "string") {
    if (schema.format === "date-time") return "date-time";
    return (schema.maxLength ?? Infinity) < LONG ? "text" : "long";
  }
  return ["integer", "number", "boolean"].includes(schema.type) ? schema.type : "json";
}

function hint(schema, description) {
  const parts = [description ?? schema.description];
  if (schema.minLength > 1) parts.push(`at least ${schema.minLength} characters`);
  if (schema.maxLength) parts.push(`at most ${schema.maxLength} characters`);
  return parts.filter(Boolean).join(", ");
}
