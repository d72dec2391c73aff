// A program of a user of the generated client: tests/test_clients.py compiles and runs it.
import { createClient, type Schemas } from "./client.js";

const [baseUrl = "", key = ""] = process.argv.slice(2);
const client = createClient({ baseUrl, key });

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

// Create.
const owner = await client.POST("/users", { body: { email: "ada@example.com", username: "ada" } });
if (owner.error) throw new Error(owner.error.detail);
const lamp: Schemas["NewItem"] = { name: "Lamp", sku: "L-1", price: 29.99, owner_id: owner.data.id };
const made = await client.POST("/items", {
  body: lamp,
  params: { header: { "Idempotency-Key": "typescript-1" } },
});
if (made.error) throw new Error(made.error.detail);
check(made.response.headers.get("Location") === `/items/${made.data.id}`, "Location");
check(made.data.description === null && made.data.updated_at === null, "nullable fields");

// A problem document: the name is taken.
const taken = await client.POST("/items", { body: lamp });
check(taken.response.status === 409, "409");
check(taken.error?.errors?.[0]?.field === "sku", "the field of a problem");

// Read, by its ETag too.
const path = { id: made.data.id };
const read = await client.GET("/items/{id}", { params: { path } });
const etag = read.response.headers.get("ETag") ?? "";
check(read.data?.price === 29.99, "price");
const same = await client.GET("/items/{id}", {
  params: { path, header: { "If-None-Match": etag } },
  parseAs: "text",
});
check(same.response.status === 304, "304");

// List by page, with the owner.
const query = { include: ["owner"], sort: "-price", is_active: true } as const;
const page = await client.GET("/items", { params: { query: { ...query, include: ["owner"] } } });
if (page.error) throw new Error(page.error.detail);
if (!("page" in page.data)) throw new Error("a page by number");
check(page.data.total === 1 && page.data.pages === 1, "total");
check(page.data.items[0]?.owner?.email === "ada@example.com", "owner");

// Import a file, then list by cursor.
const file = '{"name": "Chair"}\n{"name": "Desk"}\n';
const imported = await client.POST("/items/import", {
  body: file,
  headers: { "Content-Type": "application/x-ndjson" },
});
if (imported.data === undefined || !("created" in imported.data)) throw new Error("counts");
check(imported.data.created === 2, "import");
const sent = await client.POST("/items/import", {
  params: { query: { background: true } },
  body: "{}",
  headers: { "Content-Type": "application/x-ndjson" },
});
check(sent.data !== undefined && "state" in sent.data && sent.data.state === "queued", "a job");
const names: string[] = [];
for (let cursor: string | null = ""; cursor !== null; ) {
  const shown: { data?: Schemas["ItemPage"] | Schemas["ItemCursorPage"] } = await client.GET(
    "/items",
    { params: { query: { cursor, per_page: 2 } } },
  );
  if (shown.data === undefined) throw new Error("a page by cursor");
  names.push(...shown.data.items.map((item) => item.name));
  cursor = shown.data.next_cursor;
}
check(names.join() === "Lamp,Chair,Desk", `names: ${names.join()}`);
const user = await client.GET("/users/{id}", {
  params: { path: { id: owner.data.id }, query: { include: ["items", "keys"] } },
});
check(user.data?.items_total === 1 && user.data.keys?.length === 0, "include");

// The changes, the dashboard and the notifications.
const since = await client.GET("/items/changes", { params: { query: { limit: 1, after: 0 } } });
check(since.data?.changes[0]?.item.name !== undefined, "changes");
const told = await client.GET("/users/{id}/dashboard", { params: { path: { id: owner.data.id } } });
check(told.data?.stats.items === 1 && told.data.notifications.length === 0, "dashboard");

// Change, and delete.
const changed = await client.PATCH("/items/{id}", {
  params: { path, header: { "If-Match": etag } },
  body: { sku: null },
});
check(changed.data?.sku === null && changed.data.version === 2, "change");
const stale = await client.PATCH("/items/{id}", {
  params: { path, header: { "If-Match": etag } },
  body: { name: "Other" },
});
check(stale.response.status === 412 && stale.error?.title === "Precondition Failed", "412");
const gone = await client.DELETE("/items/{id}", { params: { path, query: { permanent: true } } });
check(gone.response.status === 204, "204");
const missing = await client.GET("/items/{id}", { params: { path } });
check(missing.response.status === 404 && missing.error?.status === 404, "404");
console.log("all calls passed");
