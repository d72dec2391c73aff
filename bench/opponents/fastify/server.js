// Fastify and postgres.js as their documentation recommends them: schemas for all that comes and
// goes, prepared statements (postgres.js pipelines them by itself), no logger, one process per
// worker by node:cluster.
//
//     PORT=8000 WORKERS=1 POOL=10 NODE_ENV=production node server.js

import cluster from 'node:cluster'
import Ajv from 'ajv'
import Fastify from 'fastify'
import postgres from 'postgres'

const workers = Number(process.env.WORKERS ?? 1)
const port = Number(process.env.PORT ?? 8000)

async function serve () {
  const sql = postgres({
    ...address(process.env.DATABASE_URL),
    max: Number(process.env.POOL ?? 10),
    types: {
      // Both fit a JavaScript number here; by themselves they would be strings.
      bigint: { to: 20, from: [20], serialize: String, parse: Number },
      numeric: { to: 1700, from: [1700], serialize: String, parse: Number }
    }
  })
  const app = Fastify({ logger: false })
  // A query is text and has to be converted; a body that has the wrong type is wrong.
  const converting = new Ajv({ coerceTypes: true, useDefaults: true })
  const strict = new Ajv({ useDefaults: true })
  app.setValidatorCompiler(({ schema, httpPart }) =>
    (httpPart === 'body' ? strict : converting).compile(schema))
  app.setErrorHandler((error, request, reply) => {
    // 22 and 23: PostgreSQL does not take a value.
    if (error instanceof postgres.PostgresError && /^2[23]/.test(error.code)) error.statusCode = 400
    reply.send(error)
  })
  app.addHook('onClose', () => sql.end())
  routes(app, sql)
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => app.close())
  await app.listen({ host: '127.0.0.1', port })
}

// postgres.js reads no unix socket from a URL, but takes its directory as the host.
function address (text) {
  const url = new URL(text)
  const given = url.searchParams
  return {
    host: given.get('host') ?? url.hostname,
    port: Number(given.get('port') ?? (url.port || 5432)),
    user: given.get('user') ?? decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    database: url.pathname.slice(1)
  }
}

const name = { type: 'string', minLength: 1, maxLength: 255 }
const description = { type: 'string', nullable: true }
const price = { type: 'number', nullable: true, minimum: 0, exclusiveMaximum: 1e10 }

const newItem = {
  type: 'object',
  required: ['name'],
  properties: {
    name,
    description: { ...description, default: null },
    price: { ...price, default: null },
    is_active: { type: 'boolean', default: true }
  }
}

const itemChange = {
  type: 'object',
  properties: { name, description, price, is_active: { type: 'boolean' } }
}

const item = {
  type: 'object',
  properties: {
    id: { type: 'integer' },
    name: { type: 'string' },
    description,
    price: { type: 'number', nullable: true },
    is_active: { type: 'boolean' },
    created_at: { type: 'string', format: 'date-time' },
    updated_at: { type: 'string', format: 'date-time', nullable: true }
  }
}

const page = {
  type: 'object',
  properties: {
    items: { type: 'array', items: item },
    total: { type: 'integer' },
    page: { type: 'integer' },
    per_page: { type: 'integer' }
  }
}

const listQuery = {
  type: 'object',
  properties: {
    page: { type: 'integer', minimum: 1, default: 1 },
    per_page: { type: 'integer', minimum: 1, maximum: 100, default: 10 },
    is_active: { type: 'boolean' },
    q: { type: 'string', minLength: 1, maxLength: 255 }
  }
}

const deleteQuery = {
  type: 'object',
  properties: { permanent: { type: 'boolean', default: false } }
}

const params = { type: 'object', properties: { id: { type: 'integer' } } }

function routes (app, sql) {
  const columns = sql`id, name, description, price, is_active, created_at, updated_at`

  app.get('/items/:id', { schema: { params, response: { 200: item } } }, async (request, reply) => {
    const [found] = await sql`SELECT ${columns} FROM items WHERE id = ${request.params.id}`
    return found ?? missing(reply)
  })

  const listing = { querystring: listQuery, response: { 200: page } }
  app.get('/items', { schema: listing }, async ({ query }) => {
    const where = sql`
      WHERE true
      ${query.is_active === undefined ? sql`` : sql`AND is_active = ${query.is_active}`}
      ${query.q === undefined ? sql`` : sql`AND name ILIKE ${containing(query.q)}`}
    `
    const [items, [{ total }]] = await Promise.all([
      sql`
        SELECT ${columns} FROM items ${where}
        ORDER BY id LIMIT ${query.per_page} OFFSET ${(query.page - 1) * query.per_page}
      `,
      sql`SELECT count(*) AS total FROM items ${where}`
    ])
    return { items, total, page: query.page, per_page: query.per_page }
  })

  const creating = { body: newItem, response: { 201: item } }
  app.post('/items', { schema: creating, preValidation: strip }, async ({ body }, reply) => {
    const [added] = await sql`
      INSERT INTO items (name, description, price, is_active)
      VALUES (${body.name}, ${body.description}, ${body.price}, ${body.is_active})
      RETURNING ${columns}
    `
    reply.code(201)
    return added
  })

  const replacing = { params, body: newItem, response: { 200: item } }
  app.put('/items/:id', { schema: replacing, preValidation: strip }, async (request, reply) => {
    const { name, description, price, is_active: active } = request.body
    const [replaced] = await sql`
      UPDATE items SET
        name = ${name}, description = ${description}, price = ${price}, is_active = ${active},
        updated_at = now()
      WHERE id = ${request.params.id} RETURNING ${columns}
    `
    return replaced ?? missing(reply)
  })

  const changing = { params, body: itemChange, response: { 200: item } }
  app.patch('/items/:id', { schema: changing, preValidation: strip }, async (request, reply) => {
    const { id } = request.params
    const named = Object.keys(itemChange.properties).filter(name => name in request.body)
    const [changed] = named.length === 0
      ? await sql`SELECT ${columns} FROM items WHERE id = ${id}`
      : await sql`
          UPDATE items SET ${sql(request.body, named)}, updated_at = now()
          WHERE id = ${id} RETURNING ${columns}
        `
    return changed ?? missing(reply)
  })

  const deleting = { params, querystring: deleteQuery, response: { 200: item } }
  app.delete('/items/:id', { schema: deleting }, async (request, reply) => {
    const { id } = request.params
    if (request.query.permanent) {
      const removed = await sql`DELETE FROM items WHERE id = ${id}`
      return removed.count ? reply.code(204).send() : missing(reply)
    }
    const [inactive] = await sql`
      UPDATE items SET is_active = false, updated_at = now() WHERE id = ${id} RETURNING ${columns}
    `
    return inactive ?? missing(reply)
  })

  app.get('/health', async () => ({ message: 'healthy' }))
}

// White space around a text does not count, so it goes before the schema looks.
function strip ({ body }, reply, done) {
  for (const name of ['name', 'description']) {
    if (typeof body?.[name] === 'string') body[name] = body[name].trim()
  }
  done()
}

function containing (text) {
  return `%${text.replace(/[\\%_]/g, '\\$&')}%`
}

function missing (reply) {
  reply.code(404)
  return { message: 'Item not found' }
}

if (workers > 1 && cluster.isPrimary) {
  for (let n = 0; n < workers; n++) cluster.fork()
} else {
  await serve()
}
