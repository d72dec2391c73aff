"""The files of a client in TypeScript beside the generated types."""

CLIENT = """\
import createFetchClient, { type Client, type ClientOptions } from "openapi-fetch";
import type { components, paths } from "./schema.js";

export type { components, operations, paths } from "./schema.js";
/** The types of the API by their names, such as `Schemas["ProblemDocument"]`. */
export type Schemas = components["schemas"];

/**
 * Return a client of @TITLE@.
 *
 * @param options - Those of openapi-fetch: `baseUrl` is the address of the service. `key` is an API
 *   key.
 */
export function createClient(options: ClientOptions & { key?: string }): Client<paths> {
  const { key, ...others } = options;
  const client = createFetchClient<paths>({
    // Lists are separated by commas, as in a=b,c.
    querySerializer: { array: { style: "form", explode: false } },
    // A file is sent as it is; give its Content-Type in `headers`.
    bodySerializer: (body: unknown) =>
      typeof body === "string" || body instanceof Blob || body instanceof ReadableStream
        ? body
        : JSON.stringify(body),
    ...others,
  });
  if (key !== undefined) {
    client.use({
      onRequest({ request }) {
        request.headers.set("Authorization", `Bearer ${key}`);
      },
    });
  }
  return client;
}
"""
PACKAGE = """\
{
  "name": "@NAME@",
  "version": "@VERSION@",
  "private": true,
  "type": "module",
  "main": "dist/client.js",
  "types": "dist/client.d.ts",
  "scripts": { "build": "tsc" },
  "dependencies": { "openapi-fetch": "^0.17.0" },
  "devDependencies": { "typescript": "^5.9.0" }
}
"""
TSCONFIG = """\
{
  "compilerOptions": {
    "target": "ES2022",
    "module": "NodeNext",
    "strict": true,
    "exactOptionalPropertyTypes": true,
    "noUncheckedIndexedAccess": true,
    "skipLibCheck": true,
    "declaration": true,
    "lib": ["ES2022", "DOM", "DOM.Iterable"],
    "outDir": "dist"
  },
  "include": ["*.ts"]
}
"""
README = """\
# @NAME@

A client of @TITLE@ @VERSION@, made by `swiftlet client typescript`.

- `schema.d.ts` has the types of the API; `swiftlet client typescript DIR --force` renews it.
- `client.ts` makes a client with openapi-fetch.

```sh
npm install
npm run build
```

```ts
import { createClient } from "./client.js";

const client = createClient({ baseUrl: "http://127.0.0.1:8000" });
const { data, error, response } = await client.GET("/health");
if (error) throw new Error(`${response.status}: ${error.detail}`);
console.log(data.message);
```

`error` is the problem document. `response.headers` has the ETag for `If-Match`.
"""
TYPESCRIPT_FILES = {
    "client.ts": CLIENT,
    "package.json": PACKAGE,
    "tsconfig.json": TSCONFIG,
    "README.md": README,
}
