-- Every statement the service runs, as it is sent to PostgreSQL. Written by `just sql` from the
-- resources of the application; tests/test_statements.py keeps it current.
-- Lists have more statements: each combination of filters and sort is compiled in the same way.

-- items.add
-- $1 sku, $2 name, $3 description, $4 price, $5 is_active, $6 owner_id
INSERT INTO items (sku, name, description, price, is_active, owner_id) VALUES ($1::VARCHAR, $2::VARCHAR, $3::VARCHAR, $4::NUMERIC, $5::BOOLEAN, $6::BIGINT) RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.add_many
-- $1 skus, $2 names, $3 descriptions, $4 prices, $5 is_actives, $6 owner_ids
INSERT INTO items (sku, name, description, price, is_active, owner_id) SELECT anon_1.sku, anon_1.name, anon_1.description, anon_1.price, anon_1.is_active, anon_1.owner_id
FROM unnest(CAST($1::VARCHAR AS TEXT[]), CAST($2::VARCHAR AS TEXT[]), CAST($3::VARCHAR AS TEXT[]), CAST($4::VARCHAR AS NUMERIC[]), CAST($5::VARCHAR AS BOOLEAN[]), CAST($6::VARCHAR AS BIGINT[])) WITH ORDINALITY AS anon_1(sku, name, description, price, is_active, owner_id, n) ORDER BY anon_1.n RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.sku_taken
-- $1 skus
WITH rows AS
(SELECT anon_1.sku AS sku, anon_1.n AS n
FROM unnest(CAST($1::VARCHAR AS TEXT[])) WITH ORDINALITY AS anon_1(sku, n))
 SELECT rows.n - 1 AS n
FROM rows
WHERE EXISTS (SELECT *
FROM items
WHERE items.sku = rows.sku) ORDER BY rows.n;

-- items.by_id
-- $1 id
SELECT items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at
FROM items
WHERE items.id = $1::BIGINT;

-- items.by_id_many
-- $1 keys
SELECT items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at
FROM items
WHERE items.id = ANY ($1::BIGINT[]);

-- items.owners
-- $1 id
SELECT users.id, users.email, users.username, users.full_name, users.role, users.is_active
FROM users
WHERE users.id = $1::BIGINT;

-- items.owners_many
-- $1 keys
SELECT users.id, users.email, users.username, users.full_name, users.role, users.is_active
FROM users
WHERE users.id = ANY ($1::BIGINT[]);

-- items.owner_exists
-- $1 id
SELECT users.id
FROM users
WHERE users.id = $1::BIGINT;

-- items.newest_by_owner
-- $1 parents
SELECT newest.id, newest.sku, newest.name, newest.description, newest.price, newest.is_active, newest.owner_id, newest.version, newest.created_at, newest.updated_at, given.id AS parent, counted.n AS total
FROM unnest($1::BIGINT[]) AS given(id) JOIN LATERAL (SELECT count(*) AS n
FROM items
WHERE items.owner_id = given.id) AS counted ON true LEFT OUTER JOIN LATERAL (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at
FROM items
WHERE items.owner_id = given.id ORDER BY items.id DESC
 LIMIT 20) AS newest ON true;

-- items.replace
-- $1 sku, $2 name, $3 description, $4 price, $5 is_active, $6 owner_id, $7 id
UPDATE items SET sku=$1::VARCHAR, name=$2::VARCHAR, description=$3::VARCHAR, price=$4::NUMERIC, is_active=$5::BOOLEAN, owner_id=$6::BIGINT, version=(items.version + 1), updated_at=now() WHERE items.id = $7::BIGINT RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.replace_if
-- $1 id, $2 sku, $3 name, $4 description, $5 price, $6 is_active, $7 owner_id, $8 versions, $9 excluded
WITH found AS
(SELECT items.version AS version
FROM items
WHERE items.id = $1::BIGINT),
changed AS
(UPDATE items SET sku=$2::VARCHAR, name=$3::VARCHAR, description=$4::VARCHAR, price=$5::NUMERIC, is_active=$6::BOOLEAN, owner_id=$7::BIGINT, version=(items.version + 1), updated_at=now() WHERE items.id = $1::BIGINT AND coalesce(items.version = ANY ($8::BIGINT[]), true) AND items.version != ALL ($9::BIGINT[]) RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at)
 SELECT changed.id, changed.sku, changed.name, changed.description, changed.price, changed.is_active, changed.owner_id, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- items.replace_own
-- $1 sku, $2 name, $3 description, $4 price, $5 is_active, $6 owner_id, $7 id, $8 owner
UPDATE items SET sku=$1::VARCHAR, name=$2::VARCHAR, description=$3::VARCHAR, price=$4::NUMERIC, is_active=$5::BOOLEAN, owner_id=$6::BIGINT, version=(items.version + 1), updated_at=now() WHERE items.id = $7::BIGINT AND (items.owner_id = $8::BIGINT) IS true RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.replace_if_own
-- $1 id, $2 owner, $3 sku, $4 name, $5 description, $6 price, $7 is_active, $8 owner_id, $9 versions, $10 excluded
WITH found AS
(SELECT items.version AS version
FROM items
WHERE items.id = $1::BIGINT AND (items.owner_id = $2::BIGINT) IS true),
changed AS
(UPDATE items SET sku=$3::VARCHAR, name=$4::VARCHAR, description=$5::VARCHAR, price=$6::NUMERIC, is_active=$7::BOOLEAN, owner_id=$8::BIGINT, version=(items.version + 1), updated_at=now() WHERE items.id = $1::BIGINT AND (items.owner_id = $2::BIGINT) IS true AND coalesce(items.version = ANY ($9::BIGINT[]), true) AND items.version != ALL ($10::BIGINT[]) RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at)
 SELECT changed.id, changed.sku, changed.name, changed.description, changed.price, changed.is_active, changed.owner_id, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- items.change
-- $1 set_sku, $2 new_sku, $3 set_name, $4 new_name, $5 set_description, $6 new_description, $7 set_price, $8 new_price, $9 set_is_active, $10 new_is_active, $11 set_owner_id, $12 new_owner_id, $13 id
UPDATE items SET sku=CASE WHEN $1::BOOLEAN THEN $2::VARCHAR ELSE items.sku END, name=CASE WHEN $3::BOOLEAN THEN $4::VARCHAR ELSE items.name END, description=CASE WHEN $5::BOOLEAN THEN $6::VARCHAR ELSE items.description END, price=CASE WHEN $7::BOOLEAN THEN $8::NUMERIC ELSE items.price END, is_active=CASE WHEN $9::BOOLEAN THEN $10::BOOLEAN ELSE items.is_active END, owner_id=CASE WHEN $11::BOOLEAN THEN $12::BIGINT ELSE items.owner_id END, version=(items.version + 1), updated_at=now() WHERE items.id = $13::BIGINT RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.change_if
-- $1 id, $2 set_sku, $3 new_sku, $4 set_name, $5 new_name, $6 set_description, $7 new_description, $8 set_price, $9 new_price, $10 set_is_active, $11 new_is_active, $12 set_owner_id, $13 new_owner_id, $14 versions, $15 excluded
WITH found AS
(SELECT items.version AS version
FROM items
WHERE items.id = $1::BIGINT),
changed AS
(UPDATE items SET sku=CASE WHEN $2::BOOLEAN THEN $3::VARCHAR ELSE items.sku END, name=CASE WHEN $4::BOOLEAN THEN $5::VARCHAR ELSE items.name END, description=CASE WHEN $6::BOOLEAN THEN $7::VARCHAR ELSE items.description END, price=CASE WHEN $8::BOOLEAN THEN $9::NUMERIC ELSE items.price END, is_active=CASE WHEN $10::BOOLEAN THEN $11::BOOLEAN ELSE items.is_active END, owner_id=CASE WHEN $12::BOOLEAN THEN $13::BIGINT ELSE items.owner_id END, version=(items.version + 1), updated_at=now() WHERE items.id = $1::BIGINT AND coalesce(items.version = ANY ($14::BIGINT[]), true) AND items.version != ALL ($15::BIGINT[]) RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at)
 SELECT changed.id, changed.sku, changed.name, changed.description, changed.price, changed.is_active, changed.owner_id, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- items.change_own
-- $1 set_sku, $2 new_sku, $3 set_name, $4 new_name, $5 set_description, $6 new_description, $7 set_price, $8 new_price, $9 set_is_active, $10 new_is_active, $11 set_owner_id, $12 new_owner_id, $13 id, $14 owner
UPDATE items SET sku=CASE WHEN $1::BOOLEAN THEN $2::VARCHAR ELSE items.sku END, name=CASE WHEN $3::BOOLEAN THEN $4::VARCHAR ELSE items.name END, description=CASE WHEN $5::BOOLEAN THEN $6::VARCHAR ELSE items.description END, price=CASE WHEN $7::BOOLEAN THEN $8::NUMERIC ELSE items.price END, is_active=CASE WHEN $9::BOOLEAN THEN $10::BOOLEAN ELSE items.is_active END, owner_id=CASE WHEN $11::BOOLEAN THEN $12::BIGINT ELSE items.owner_id END, version=(items.version + 1), updated_at=now() WHERE items.id = $13::BIGINT AND (items.owner_id = $14::BIGINT) IS true RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.change_if_own
-- $1 id, $2 owner, $3 set_sku, $4 new_sku, $5 set_name, $6 new_name, $7 set_description, $8 new_description, $9 set_price, $10 new_price, $11 set_is_active, $12 new_is_active, $13 set_owner_id, $14 new_owner_id, $15 versions, $16 excluded
WITH found AS
(SELECT items.version AS version
FROM items
WHERE items.id = $1::BIGINT AND (items.owner_id = $2::BIGINT) IS true),
changed AS
(UPDATE items SET sku=CASE WHEN $3::BOOLEAN THEN $4::VARCHAR ELSE items.sku END, name=CASE WHEN $5::BOOLEAN THEN $6::VARCHAR ELSE items.name END, description=CASE WHEN $7::BOOLEAN THEN $8::VARCHAR ELSE items.description END, price=CASE WHEN $9::BOOLEAN THEN $10::NUMERIC ELSE items.price END, is_active=CASE WHEN $11::BOOLEAN THEN $12::BOOLEAN ELSE items.is_active END, owner_id=CASE WHEN $13::BOOLEAN THEN $14::BIGINT ELSE items.owner_id END, version=(items.version + 1), updated_at=now() WHERE items.id = $1::BIGINT AND (items.owner_id = $2::BIGINT) IS true AND coalesce(items.version = ANY ($15::BIGINT[]), true) AND items.version != ALL ($16::BIGINT[]) RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at)
 SELECT changed.id, changed.sku, changed.name, changed.description, changed.price, changed.is_active, changed.owner_id, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- items.deactivate
-- $1 id
UPDATE items SET is_active=false, version=(items.version + CAST(items.is_active AS INTEGER)), updated_at=CASE WHEN items.is_active THEN now() ELSE items.updated_at END WHERE items.id = $1::BIGINT RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.deactivate_if
-- $1 id, $2 versions, $3 excluded
WITH found AS
(SELECT items.version AS version
FROM items
WHERE items.id = $1::BIGINT),
changed AS
(UPDATE items SET is_active=false, version=(items.version + CAST(items.is_active AS INTEGER)), updated_at=CASE WHEN items.is_active THEN now() ELSE items.updated_at END WHERE items.id = $1::BIGINT AND coalesce(items.version = ANY ($2::BIGINT[]), true) AND items.version != ALL ($3::BIGINT[]) RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at)
 SELECT changed.id, changed.sku, changed.name, changed.description, changed.price, changed.is_active, changed.owner_id, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- items.deactivate_own
-- $1 id, $2 owner
UPDATE items SET is_active=false, version=(items.version + CAST(items.is_active AS INTEGER)), updated_at=CASE WHEN items.is_active THEN now() ELSE items.updated_at END WHERE items.id = $1::BIGINT AND (items.owner_id = $2::BIGINT) IS true RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.deactivate_if_own
-- $1 id, $2 owner, $3 versions, $4 excluded
WITH found AS
(SELECT items.version AS version
FROM items
WHERE items.id = $1::BIGINT AND (items.owner_id = $2::BIGINT) IS true),
changed AS
(UPDATE items SET is_active=false, version=(items.version + CAST(items.is_active AS INTEGER)), updated_at=CASE WHEN items.is_active THEN now() ELSE items.updated_at END WHERE items.id = $1::BIGINT AND (items.owner_id = $2::BIGINT) IS true AND coalesce(items.version = ANY ($3::BIGINT[]), true) AND items.version != ALL ($4::BIGINT[]) RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at)
 SELECT changed.id, changed.sku, changed.name, changed.description, changed.price, changed.is_active, changed.owner_id, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- items.remove
-- $1 id
DELETE FROM items WHERE items.id = $1::BIGINT RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.remove_if
-- $1 id, $2 versions, $3 excluded
WITH found AS
(SELECT items.version AS version
FROM items
WHERE items.id = $1::BIGINT),
changed AS
(DELETE FROM items WHERE items.id = $1::BIGINT AND coalesce(items.version = ANY ($2::BIGINT[]), true) AND items.version != ALL ($3::BIGINT[]) RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at)
 SELECT changed.id, changed.sku, changed.name, changed.description, changed.price, changed.is_active, changed.owner_id, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- items.remove_own
-- $1 id, $2 owner
DELETE FROM items WHERE items.id = $1::BIGINT AND (items.owner_id = $2::BIGINT) IS true RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.remove_if_own
-- $1 id, $2 owner, $3 versions, $4 excluded
WITH found AS
(SELECT items.version AS version
FROM items
WHERE items.id = $1::BIGINT AND (items.owner_id = $2::BIGINT) IS true),
changed AS
(DELETE FROM items WHERE items.id = $1::BIGINT AND (items.owner_id = $2::BIGINT) IS true AND coalesce(items.version = ANY ($3::BIGINT[]), true) AND items.version != ALL ($4::BIGINT[]) RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at)
 SELECT changed.id, changed.sku, changed.name, changed.description, changed.price, changed.is_active, changed.owner_id, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- items.change_many
-- $1 ids, $2 versions, $3 softs, $4 set_skus, $5 new_skus, $6 set_names, $7 new_names, $8 set_descriptions, $9 new_descriptions, $10 set_prices, $11 new_prices, $12 set_is_actives, $13 new_is_actives, $14 set_owner_ids, $15 new_owner_ids
UPDATE items SET sku=CASE WHEN anon_1.set_sku THEN anon_1.new_sku ELSE items.sku END, name=CASE WHEN anon_1.set_name THEN anon_1.new_name ELSE items.name END, description=CASE WHEN anon_1.set_description THEN anon_1.new_description ELSE items.description END, price=CASE WHEN anon_1.set_price THEN anon_1.new_price ELSE items.price END, is_active=CASE WHEN anon_1.set_is_active THEN anon_1.new_is_active ELSE items.is_active END, owner_id=CASE WHEN anon_1.set_owner_id THEN anon_1.new_owner_id ELSE items.owner_id END, version=(items.version + CAST(anon_1.soft IS NOT true OR items.is_active AS INTEGER)), updated_at=CASE WHEN (anon_1.soft IS NOT true OR items.is_active) THEN now() ELSE items.updated_at END FROM unnest(CAST($1::VARCHAR AS BIGINT[]), CAST($2::VARCHAR AS BIGINT[]), CAST($3::VARCHAR AS BOOLEAN[]), CAST($4::VARCHAR AS BOOLEAN[]), CAST($5::VARCHAR AS TEXT[]), CAST($6::VARCHAR AS BOOLEAN[]), CAST($7::VARCHAR AS TEXT[]), CAST($8::VARCHAR AS BOOLEAN[]), CAST($9::VARCHAR AS TEXT[]), CAST($10::VARCHAR AS BOOLEAN[]), CAST($11::VARCHAR AS NUMERIC[]), CAST($12::VARCHAR AS BOOLEAN[]), CAST($13::VARCHAR AS BOOLEAN[]), CAST($14::VARCHAR AS BOOLEAN[]), CAST($15::VARCHAR AS BIGINT[])) WITH ORDINALITY AS anon_1(id, version, soft, set_sku, new_sku, set_name, new_name, set_description, new_description, set_price, new_price, set_is_active, new_is_active, set_owner_id, new_owner_id, n) WHERE items.id = anon_1.id AND coalesce(items.version = anon_1.version, true) RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.change_many_own
-- $1 ids, $2 versions, $3 softs, $4 owners, $5 set_skus, $6 new_skus, $7 set_names, $8 new_names, $9 set_descriptions, $10 new_descriptions, $11 set_prices, $12 new_prices, $13 set_is_actives, $14 new_is_actives, $15 set_owner_ids, $16 new_owner_ids
UPDATE items SET sku=CASE WHEN anon_1.set_sku THEN anon_1.new_sku ELSE items.sku END, name=CASE WHEN anon_1.set_name THEN anon_1.new_name ELSE items.name END, description=CASE WHEN anon_1.set_description THEN anon_1.new_description ELSE items.description END, price=CASE WHEN anon_1.set_price THEN anon_1.new_price ELSE items.price END, is_active=CASE WHEN anon_1.set_is_active THEN anon_1.new_is_active ELSE items.is_active END, owner_id=CASE WHEN anon_1.set_owner_id THEN anon_1.new_owner_id ELSE items.owner_id END, version=(items.version + CAST(anon_1.soft IS NOT true OR items.is_active AS INTEGER)), updated_at=CASE WHEN (anon_1.soft IS NOT true OR items.is_active) THEN now() ELSE items.updated_at END FROM unnest(CAST($1::VARCHAR AS BIGINT[]), CAST($2::VARCHAR AS BIGINT[]), CAST($3::VARCHAR AS BOOLEAN[]), CAST($4::VARCHAR AS BIGINT[]), CAST($5::VARCHAR AS BOOLEAN[]), CAST($6::VARCHAR AS TEXT[]), CAST($7::VARCHAR AS BOOLEAN[]), CAST($8::VARCHAR AS TEXT[]), CAST($9::VARCHAR AS BOOLEAN[]), CAST($10::VARCHAR AS TEXT[]), CAST($11::VARCHAR AS BOOLEAN[]), CAST($12::VARCHAR AS NUMERIC[]), CAST($13::VARCHAR AS BOOLEAN[]), CAST($14::VARCHAR AS BOOLEAN[]), CAST($15::VARCHAR AS BOOLEAN[]), CAST($16::VARCHAR AS BIGINT[])) WITH ORDINALITY AS anon_1(id, version, soft, owner, set_sku, new_sku, set_name, new_name, set_description, new_description, set_price, new_price, set_is_active, new_is_active, set_owner_id, new_owner_id, n) WHERE items.id = anon_1.id AND (anon_1.owner IS NULL OR items.owner_id = anon_1.owner) AND coalesce(items.version = anon_1.version, true) RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.add_all
-- $1 skus, $2 names, $3 descriptions, $4 prices, $5 is_actives, $6 owner_ids
WITH rows AS
(SELECT anon_1.sku AS sku, anon_1.name AS name, anon_1.description AS description, anon_1.price AS price, anon_1.is_active AS is_active, anon_1.owner_id AS owner_id, anon_1.n AS n
FROM unnest(CAST($1::VARCHAR AS TEXT[]), CAST($2::VARCHAR AS TEXT[]), CAST($3::VARCHAR AS TEXT[]), CAST($4::VARCHAR AS NUMERIC[]), CAST($5::VARCHAR AS BOOLEAN[]), CAST($6::VARCHAR AS BIGINT[])) WITH ORDINALITY AS anon_1(sku, name, description, price, is_active, owner_id, n)),
numbered AS
(SELECT nextval((SELECT pg_get_serial_sequence('items', 'id')::regclass AS sequence)) AS id, "new".sku AS sku, "new".name AS name, "new".description AS description, "new".price AS price, "new".is_active AS is_active, "new".owner_id AS owner_id
FROM (SELECT rows.sku AS sku, rows.name AS name, rows.description AS description, rows.price AS price, rows.is_active AS is_active, rows.owner_id AS owner_id
FROM rows ORDER BY rows.n) AS "new")
 INSERT INTO items (id, sku, name, description, price, is_active, owner_id) OVERRIDING SYSTEM VALUE SELECT numbered.id, numbered.sku, numbered.name, numbered.description, numbered.price, numbered.is_active, numbered.owner_id
FROM numbered ORDER BY numbered.sku COLLATE "C" RETURNING items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at;

-- items.upsert
-- $1 skus, $2 names, $3 descriptions, $4 prices, $5 is_actives, $6 owner_ids
WITH rows AS
(SELECT anon_1.sku AS sku, anon_1.name AS name, anon_1.description AS description, anon_1.price AS price, anon_1.is_active AS is_active, anon_1.owner_id AS owner_id, anon_1.n AS n
FROM unnest(CAST($1::VARCHAR AS TEXT[]), CAST($2::VARCHAR AS TEXT[]), CAST($3::VARCHAR AS TEXT[]), CAST($4::VARCHAR AS NUMERIC[]), CAST($5::VARCHAR AS BOOLEAN[]), CAST($6::VARCHAR AS BIGINT[])) WITH ORDINALITY AS anon_1(sku, name, description, price, is_active, owner_id, n)),
existing AS
(SELECT rows.sku AS sku, rows.name AS name, rows.description AS description, rows.price AS price, rows.is_active AS is_active, rows.owner_id AS owner_id, rows.n AS n, items.id AS id, items.version AS version, (items.sku, items.name, items.description, items.price, items.is_active, items.owner_id) IS DISTINCT FROM (rows.sku, rows.name, rows.description, rows.price, rows.is_active, rows.owner_id) AS differs
FROM rows, items
WHERE items.sku = rows.sku ORDER BY items.id FOR NO KEY UPDATE OF items),
updated AS
(UPDATE items SET sku=existing.sku, name=existing.name, description=existing.description, price=existing.price, is_active=existing.is_active, owner_id=existing.owner_id, version=(items.version + 1), updated_at=now() FROM existing WHERE items.id = existing.id AND existing.differs),
numbered AS
(SELECT nextval((SELECT pg_get_serial_sequence('items', 'id')::regclass AS sequence)) AS id, "new".sku AS sku, "new".name AS name, "new".description AS description, "new".price AS price, "new".is_active AS is_active, "new".owner_id AS owner_id
FROM (SELECT rows.sku AS sku, rows.name AS name, rows.description AS description, rows.price AS price, rows.is_active AS is_active, rows.owner_id AS owner_id
FROM rows
WHERE (rows.n NOT IN (SELECT existing.n
FROM existing)) ORDER BY rows.n) AS "new"),
inserted AS
(INSERT INTO items (id, sku, name, description, price, is_active, owner_id) OVERRIDING SYSTEM VALUE SELECT numbered.id AS id, numbered.sku AS sku, numbered.name AS name, numbered.description AS description, numbered.price AS price, numbered.is_active AS is_active, numbered.owner_id AS owner_id
FROM numbered ORDER BY numbered.sku COLLATE "C" RETURNING items.id, items.sku)
 SELECT existing.id, existing.sku, existing.version + CAST(existing.differs AS INTEGER) AS version, existing.differs
FROM existing UNION ALL SELECT inserted.id, inserted.sku, 1, CAST(NULL AS BOOLEAN) AS anon_2
FROM inserted;

-- items.upsert_own
-- $1 skus, $2 names, $3 descriptions, $4 prices, $5 is_actives, $6 owner_ids, $7 owner
WITH rows AS
(SELECT anon_1.sku AS sku, anon_1.name AS name, anon_1.description AS description, anon_1.price AS price, anon_1.is_active AS is_active, anon_1.owner_id AS owner_id, anon_1.n AS n
FROM unnest(CAST($1::VARCHAR AS TEXT[]), CAST($2::VARCHAR AS TEXT[]), CAST($3::VARCHAR AS TEXT[]), CAST($4::VARCHAR AS NUMERIC[]), CAST($5::VARCHAR AS BOOLEAN[]), CAST($6::VARCHAR AS BIGINT[])) WITH ORDINALITY AS anon_1(sku, name, description, price, is_active, owner_id, n)),
existing AS
(SELECT rows.sku AS sku, rows.name AS name, rows.description AS description, rows.price AS price, rows.is_active AS is_active, rows.owner_id AS owner_id, rows.n AS n, items.id AS id, items.version AS version, (items.sku, items.name, items.description, items.price, items.is_active, items.owner_id) IS DISTINCT FROM (rows.sku, rows.name, rows.description, rows.price, rows.is_active, rows.owner_id) AS differs
FROM rows, items
WHERE items.sku = rows.sku AND (items.owner_id = $7::BIGINT) IS true ORDER BY items.id FOR NO KEY UPDATE OF items),
updated AS
(UPDATE items SET sku=existing.sku, name=existing.name, description=existing.description, price=existing.price, is_active=existing.is_active, owner_id=existing.owner_id, version=(items.version + 1), updated_at=now() FROM existing WHERE items.id = existing.id AND existing.differs),
numbered AS
(SELECT nextval((SELECT pg_get_serial_sequence('items', 'id')::regclass AS sequence)) AS id, "new".sku AS sku, "new".name AS name, "new".description AS description, "new".price AS price, "new".is_active AS is_active, "new".owner_id AS owner_id
FROM (SELECT rows.sku AS sku, rows.name AS name, rows.description AS description, rows.price AS price, rows.is_active AS is_active, rows.owner_id AS owner_id
FROM rows
WHERE (rows.n NOT IN (SELECT existing.n
FROM existing)) ORDER BY rows.n) AS "new"),
inserted AS
(INSERT INTO items (id, sku, name, description, price, is_active, owner_id) OVERRIDING SYSTEM VALUE SELECT numbered.id AS id, numbered.sku AS sku, numbered.name AS name, numbered.description AS description, numbered.price AS price, numbered.is_active AS is_active, numbered.owner_id AS owner_id
FROM numbered ORDER BY numbered.sku COLLATE "C" RETURNING items.id, items.sku)
 SELECT existing.id, existing.sku, existing.version + CAST(existing.differs AS INTEGER) AS version, existing.differs
FROM existing UNION ALL SELECT inserted.id, inserted.sku, 1, CAST(NULL AS BOOLEAN) AS anon_2
FROM inserted;

-- items.upsert_taken_own
-- $1 skus, $2 owner
WITH rows AS
(SELECT anon_1.sku AS sku, anon_1.n AS n
FROM unnest(CAST($1::VARCHAR AS TEXT[])) WITH ORDINALITY AS anon_1(sku, n))
 SELECT rows.n - 1 AS n
FROM rows
WHERE EXISTS (SELECT *
FROM items
WHERE items.sku = rows.sku AND items.owner_id IS DISTINCT FROM $2::BIGINT) ORDER BY rows.n;

-- items.existing
-- $1 ids
SELECT items.id
FROM items
WHERE items.id = ANY ($1::BIGINT[]) ORDER BY items.id;

-- items.existing_own
-- $1 ids, $2 owner
SELECT items.id
FROM items
WHERE items.id = ANY ($1::BIGINT[]) AND (items.owner_id = $2::BIGINT) IS true ORDER BY items.id;

-- items.change_all
-- $1 set_sku, $2 new_sku, $3 set_name, $4 new_name, $5 set_description, $6 new_description, $7 set_price, $8 new_price, $9 set_is_active, $10 new_is_active, $11 set_owner_id, $12 new_owner_id, $13 ids
WITH existing AS
(SELECT items.id AS id
FROM items
WHERE items.id = ANY ($13::BIGINT[]) ORDER BY items.id FOR NO KEY UPDATE),
written AS
(UPDATE items SET sku=CASE WHEN $1::BOOLEAN THEN $2::VARCHAR ELSE items.sku END, name=CASE WHEN $3::BOOLEAN THEN $4::VARCHAR ELSE items.name END, description=CASE WHEN $5::BOOLEAN THEN $6::VARCHAR ELSE items.description END, price=CASE WHEN $7::BOOLEAN THEN $8::NUMERIC ELSE items.price END, is_active=CASE WHEN $9::BOOLEAN THEN $10::BOOLEAN ELSE items.is_active END, owner_id=CASE WHEN $11::BOOLEAN THEN $12::BIGINT ELSE items.owner_id END, version=(items.version + 1), updated_at=now() FROM existing WHERE items.id = existing.id)
 SELECT existing.id
FROM existing;

-- items.change_all_own
-- $1 set_sku, $2 new_sku, $3 set_name, $4 new_name, $5 set_description, $6 new_description, $7 set_price, $8 new_price, $9 set_is_active, $10 new_is_active, $11 set_owner_id, $12 new_owner_id, $13 ids, $14 owner
WITH existing AS
(SELECT items.id AS id
FROM items
WHERE items.id = ANY ($13::BIGINT[]) AND (items.owner_id = $14::BIGINT) IS true ORDER BY items.id FOR NO KEY UPDATE),
written AS
(UPDATE items SET sku=CASE WHEN $1::BOOLEAN THEN $2::VARCHAR ELSE items.sku END, name=CASE WHEN $3::BOOLEAN THEN $4::VARCHAR ELSE items.name END, description=CASE WHEN $5::BOOLEAN THEN $6::VARCHAR ELSE items.description END, price=CASE WHEN $7::BOOLEAN THEN $8::NUMERIC ELSE items.price END, is_active=CASE WHEN $9::BOOLEAN THEN $10::BOOLEAN ELSE items.is_active END, owner_id=CASE WHEN $11::BOOLEAN THEN $12::BIGINT ELSE items.owner_id END, version=(items.version + 1), updated_at=now() FROM existing WHERE items.id = existing.id)
 SELECT existing.id
FROM existing;

-- items.deactivate_all
-- $1 ids
WITH existing AS
(SELECT items.id AS id
FROM items
WHERE items.id = ANY ($1::BIGINT[]) ORDER BY items.id FOR NO KEY UPDATE),
written AS
(UPDATE items SET is_active=false, version=(items.version + CAST(items.is_active AS INTEGER)), updated_at=CASE WHEN items.is_active THEN now() ELSE items.updated_at END FROM existing WHERE items.id = existing.id AND items.is_active)
 SELECT existing.id
FROM existing;

-- items.deactivate_all_own
-- $1 ids, $2 owner
WITH existing AS
(SELECT items.id AS id
FROM items
WHERE items.id = ANY ($1::BIGINT[]) AND (items.owner_id = $2::BIGINT) IS true ORDER BY items.id FOR NO KEY UPDATE),
written AS
(UPDATE items SET is_active=false, version=(items.version + CAST(items.is_active AS INTEGER)), updated_at=CASE WHEN items.is_active THEN now() ELSE items.updated_at END FROM existing WHERE items.id = existing.id AND items.is_active)
 SELECT existing.id
FROM existing;

-- items.remove_all
-- $1 ids
WITH existing AS
(SELECT items.id AS id
FROM items
WHERE items.id = ANY ($1::BIGINT[]) ORDER BY items.id FOR UPDATE),
written AS
(DELETE FROM items USING existing WHERE items.id = existing.id)
 SELECT existing.id
FROM existing;

-- items.remove_all_own
-- $1 ids, $2 owner
WITH existing AS
(SELECT items.id AS id
FROM items
WHERE items.id = ANY ($1::BIGINT[]) AND (items.owner_id = $2::BIGINT) IS true ORDER BY items.id FOR UPDATE),
written AS
(DELETE FROM items USING existing WHERE items.id = existing.id)
 SELECT existing.id
FROM existing;

-- items.owner_absent
-- $1 owner_ids
WITH rows AS
(SELECT anon_1.owner_id AS owner_id, anon_1.n AS n
FROM unnest(CAST($1::VARCHAR AS BIGINT[])) WITH ORDINALITY AS anon_1(owner_id, n))
 SELECT rows.n - 1 AS n
FROM rows
WHERE rows.owner_id IS NOT NULL AND NOT (EXISTS (SELECT *
FROM users
WHERE users.id = rows.owner_id)) ORDER BY rows.n;

-- items.page
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'items') AS counted LEFT OUTER JOIN (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.id AS sort_key
FROM items ORDER BY items.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- items.start
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.id AS sort_key
FROM items ORDER BY items.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- items.after
-- $1 last_id, $2 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.id AS sort_key
FROM items
WHERE items.id > $1::BIGINT ORDER BY items.id ASC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- items.page?sort=-id
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'items') AS counted LEFT OUTER JOIN (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.id AS sort_key
FROM items ORDER BY items.id DESC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- items.start?sort=-id
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.id AS sort_key
FROM items ORDER BY items.id DESC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- items.after?sort=-id
-- $1 last_id, $2 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.id AS sort_key
FROM items
WHERE items.id < $1::BIGINT ORDER BY items.id DESC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- items.page?sort=created_at
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'items') AS counted LEFT OUTER JOIN (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.created_at AS sort_key
FROM items ORDER BY items.created_at ASC, items.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- items.start?sort=created_at
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.created_at AS sort_key
FROM items ORDER BY items.created_at ASC, items.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- items.after?sort=created_at
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.created_at AS sort_key
FROM items
WHERE (items.created_at, items.id) > ($1::TIMESTAMP WITH TIME ZONE, $2::BIGINT) ORDER BY items.created_at ASC, items.id ASC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- items.page?sort=-created_at
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'items') AS counted LEFT OUTER JOIN (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.created_at AS sort_key
FROM items ORDER BY items.created_at DESC, items.id DESC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- items.start?sort=-created_at
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.created_at AS sort_key
FROM items ORDER BY items.created_at DESC, items.id DESC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- items.after?sort=-created_at
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.created_at AS sort_key
FROM items
WHERE (items.created_at, items.id) < ($1::TIMESTAMP WITH TIME ZONE, $2::BIGINT) ORDER BY items.created_at DESC, items.id DESC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- items.page?sort=name
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'items') AS counted LEFT OUTER JOIN (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.name COLLATE "C" AS sort_key
FROM items ORDER BY items.name COLLATE "C" ASC, items.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- items.start?sort=name
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.name COLLATE "C" AS sort_key
FROM items ORDER BY items.name COLLATE "C" ASC, items.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- items.after?sort=name
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.name COLLATE "C" AS sort_key
FROM items
WHERE (items.name COLLATE "C", items.id) > ($1::VARCHAR COLLATE "C", $2::BIGINT) ORDER BY items.name COLLATE "C" ASC, items.id ASC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- items.page?sort=-name
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'items') AS counted LEFT OUTER JOIN (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.name COLLATE "C" AS sort_key
FROM items ORDER BY items.name COLLATE "C" DESC, items.id DESC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- items.start?sort=-name
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.name COLLATE "C" AS sort_key
FROM items ORDER BY items.name COLLATE "C" DESC, items.id DESC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- items.after?sort=-name
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.name COLLATE "C" AS sort_key
FROM items
WHERE (items.name COLLATE "C", items.id) < ($1::VARCHAR COLLATE "C", $2::BIGINT) ORDER BY items.name COLLATE "C" DESC, items.id DESC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- items.page?sort=price
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'items') AS counted LEFT OUTER JOIN (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, coalesce(items.price, 10000000000) AS sort_key
FROM items ORDER BY coalesce(items.price, 10000000000) ASC, items.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- items.start?sort=price
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, coalesce(items.price, 10000000000) AS sort_key
FROM items ORDER BY coalesce(items.price, 10000000000) ASC, items.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- items.after?sort=price
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, coalesce(items.price, 10000000000) AS sort_key
FROM items
WHERE (coalesce(items.price, 10000000000), items.id) > ($1::NUMERIC, $2::BIGINT) ORDER BY coalesce(items.price, 10000000000) ASC, items.id ASC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- items.page?sort=-price
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'items') AS counted LEFT OUTER JOIN (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, coalesce(items.price, 10000000000) AS sort_key
FROM items ORDER BY coalesce(items.price, 10000000000) DESC, items.id DESC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- items.start?sort=-price
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, coalesce(items.price, 10000000000) AS sort_key
FROM items ORDER BY coalesce(items.price, 10000000000) DESC, items.id DESC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- items.after?sort=-price
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, coalesce(items.price, 10000000000) AS sort_key
FROM items
WHERE (coalesce(items.price, 10000000000), items.id) < ($1::NUMERIC, $2::BIGINT) ORDER BY coalesce(items.price, 10000000000) DESC, items.id DESC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- items.page?is_active=true
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.active), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'items') AS counted LEFT OUTER JOIN (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.id AS sort_key
FROM items
WHERE items.is_active ORDER BY items.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- items.page?is_active=false
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total) - sum(totals.active), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'items') AS counted LEFT OUTER JOIN (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.id AS sort_key
FROM items
WHERE NOT items.is_active ORDER BY items.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- items.page?q
-- $1 q, $2 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT items.id, items.id AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM items ORDER BY items.id ASC LIMIT 500) AS walked) AS numbered
  WHERE hit OR n = 500 LIMIT ($2::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($2::BIGINT) AND max(n) = 500 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($2::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 16) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows AS remaining, found * 500 > 4 * seen * (hits + 1) AS elsewhere, ($2::BIGINT) / greatest(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS expected, ($2::BIGINT) / least(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 10, rows * 6) * (1 - 1) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.1250::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE hit) AS found, least(CASE WHEN (to_regclass('items_search_idx') IS NOT NULL AND CASE WHEN (SELECT datctype IN ('C', 'POSIX')
   FROM pg_database WHERE datname = current_database()) THEN ($1::VARCHAR COLLATE "C") ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' ELSE $1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' END) THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('items') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('items') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS d0 FROM items
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 500) AS rows FROM pg_class WHERE oid = 'items'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT items.id, items.id AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM items
  WHERE (SELECT budget > 0 FROM sample) ORDER BY items.id ASC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $2::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $2::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT items.id, items.id AS sort_key FROM items
  WHERE CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key ASC, id ASC LIMIT 101) AS most LIMIT $2::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.sku, shown.name, shown.description, shown.price, shown.is_active, shown.owner_id, shown.version, shown.created_at, shown.updated_at, page.sort_key, counted.total
FROM (SELECT CASE WHEN (SELECT needed FROM gather) THEN (SELECT count(*) FROM every) ELSE (SELECT count(*) FROM items
  WHERE CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END) END AS total) AS counted LEFT JOIN (page CROSS JOIN LATERAL (SELECT items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at FROM items WHERE items.id = page.id OFFSET 0) AS shown) ON true
ORDER BY page.sort_key ASC, page.id ASC;

-- items.page?owner_id
-- $1 owner_id, $2 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM items
WHERE items.owner_id = $1::BIGINT) AS matching) AS counted LEFT OUTER JOIN (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.id AS sort_key
FROM items
WHERE items.owner_id = $1::BIGINT ORDER BY items.id ASC
 LIMIT 101) AS page ON true
 LIMIT $2::BIGINT;

-- items.page?min_price
-- $1 min_price, $2 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT items.id, items.id AS sort_key, (coalesce(items.price, 10000000000) >= $1::NUMERIC AND coalesce(items.price, 10000000000) < 10000000000) AS hit
  FROM items ORDER BY items.id ASC LIMIT 500) AS walked) AS numbered
  WHERE hit OR n = 500 LIMIT ($2::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($2::BIGINT) AND max(n) = 500 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($2::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 16) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows AS remaining, found * 500 > 4 * seen * (hits + 1) AS elsewhere, ($2::BIGINT) / greatest(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS expected, ($2::BIGINT) / least(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 5, rows * 1) * (1 - 1) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.7500::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE hit) AS found, least(CASE WHEN true THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('items') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('items') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT (coalesce(items.price, 10000000000) >= $1::NUMERIC AND coalesce(items.price, 10000000000) < 10000000000) AS hit, (coalesce(items.price, 10000000000) >= $1::NUMERIC AND coalesce(items.price, 10000000000) < 10000000000) AS d0 FROM items
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 500) AS rows FROM pg_class WHERE oid = 'items'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT items.id, items.id AS sort_key, (coalesce(items.price, 10000000000) >= $1::NUMERIC AND coalesce(items.price, 10000000000) < 10000000000) AS hit
  FROM items
  WHERE (SELECT budget > 0 FROM sample) ORDER BY items.id ASC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $2::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $2::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT items.id, items.id AS sort_key FROM items
  WHERE (coalesce(items.price, 10000000000) >= $1::NUMERIC AND coalesce(items.price, 10000000000) < 10000000000) AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key ASC, id ASC LIMIT 101) AS most LIMIT $2::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.sku, shown.name, shown.description, shown.price, shown.is_active, shown.owner_id, shown.version, shown.created_at, shown.updated_at, page.sort_key, counted.total
FROM (SELECT CASE WHEN (SELECT needed FROM gather) THEN (SELECT count(*) FROM every) ELSE (SELECT count(*) FROM items
  WHERE (coalesce(items.price, 10000000000) >= $1::NUMERIC AND coalesce(items.price, 10000000000) < 10000000000)) END AS total) AS counted LEFT JOIN (page CROSS JOIN LATERAL (SELECT items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at FROM items WHERE items.id = page.id OFFSET 0) AS shown) ON true
ORDER BY page.sort_key ASC, page.id ASC;

-- items.page?max_price
-- $1 max_price, $2 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT items.id, items.id AS sort_key, coalesce(items.price, 10000000000) <= $1::NUMERIC AS hit
  FROM items ORDER BY items.id ASC LIMIT 500) AS walked) AS numbered
  WHERE hit OR n = 500 LIMIT ($2::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($2::BIGINT) AND max(n) = 500 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($2::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 16) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows AS remaining, found * 500 > 4 * seen * (hits + 1) AS elsewhere, ($2::BIGINT) / greatest(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS expected, ($2::BIGINT) / least(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 5, rows * 1) * (1 - 1) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.7500::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE hit) AS found, least(CASE WHEN true THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('items') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('items') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT coalesce(items.price, 10000000000) <= $1::NUMERIC AS hit, coalesce(items.price, 10000000000) <= $1::NUMERIC AS d0 FROM items
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 500) AS rows FROM pg_class WHERE oid = 'items'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT items.id, items.id AS sort_key, coalesce(items.price, 10000000000) <= $1::NUMERIC AS hit
  FROM items
  WHERE (SELECT budget > 0 FROM sample) ORDER BY items.id ASC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $2::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $2::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT items.id, items.id AS sort_key FROM items
  WHERE coalesce(items.price, 10000000000) <= $1::NUMERIC AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key ASC, id ASC LIMIT 101) AS most LIMIT $2::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.sku, shown.name, shown.description, shown.price, shown.is_active, shown.owner_id, shown.version, shown.created_at, shown.updated_at, page.sort_key, counted.total
FROM (SELECT CASE WHEN (SELECT needed FROM gather) THEN (SELECT count(*) FROM every) ELSE (SELECT count(*) FROM items
  WHERE coalesce(items.price, 10000000000) <= $1::NUMERIC) END AS total) AS counted LEFT JOIN (page CROSS JOIN LATERAL (SELECT items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at FROM items WHERE items.id = page.id OFFSET 0) AS shown) ON true
ORDER BY page.sort_key ASC, page.id ASC;

-- items.page?q&total=estimated
-- $1 q, $2 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT items.id, items.id AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM items ORDER BY items.id ASC LIMIT 500) AS walked) AS numbered
  WHERE hit OR n = 500 LIMIT ($2::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($2::BIGINT) AND max(n) = 500 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($2::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 16) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows AS remaining, found * 500 > 4 * seen * (hits + 1) AS elsewhere, ($2::BIGINT) / greatest(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS expected, ($2::BIGINT) / least(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 10, rows * 6) * (1 - least(10000 * seen / (rows * (found + 1)), 1)) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.1250::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE hit) AS found, least(CASE WHEN (to_regclass('items_search_idx') IS NOT NULL AND CASE WHEN (SELECT datctype IN ('C', 'POSIX')
   FROM pg_database WHERE datname = current_database()) THEN ($1::VARCHAR COLLATE "C") ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' ELSE $1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' END) THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('items') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('items') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS d0 FROM items
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 500) AS rows FROM pg_class WHERE oid = 'items'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT items.id, items.id AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM items
  WHERE (SELECT budget > 0 FROM sample) ORDER BY items.id ASC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $2::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $2::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT items.id, items.id AS sort_key FROM items
  WHERE CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key ASC, id ASC LIMIT 101) AS most LIMIT $2::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.sku, shown.name, shown.description, shown.price, shown.is_active, shown.owner_id, shown.version, shown.created_at, shown.updated_at, page.sort_key, counted.total
FROM (SELECT CASE WHEN (SELECT needed FROM gather) THEN least((SELECT count(*) FROM every), 10000) ELSE (SELECT count(*) FROM (SELECT FROM items
  WHERE CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END LIMIT 10000) AS matching) END AS total) AS counted LEFT JOIN (page CROSS JOIN LATERAL (SELECT items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at FROM items WHERE items.id = page.id OFFSET 0) AS shown) ON true
ORDER BY page.sort_key ASC, page.id ASC;

-- items.page?q&total=none
-- $1 q, $2 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT items.id, items.id AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM items ORDER BY items.id ASC LIMIT 500) AS walked) AS numbered
  WHERE hit OR n = 500 LIMIT ($2::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($2::BIGINT) AND max(n) = 500 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($2::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 16) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows AS remaining, found * 500 > 4 * seen * (hits + 1) AS elsewhere, ($2::BIGINT) / greatest(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS expected, ($2::BIGINT) / least(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 10, rows * 6) * (1 - 0) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.1250::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE hit) AS found, least(CASE WHEN (to_regclass('items_search_idx') IS NOT NULL AND CASE WHEN (SELECT datctype IN ('C', 'POSIX')
   FROM pg_database WHERE datname = current_database()) THEN ($1::VARCHAR COLLATE "C") ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' ELSE $1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' END) THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('items') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('items') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS d0 FROM items
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 500) AS rows FROM pg_class WHERE oid = 'items'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT items.id, items.id AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM items
  WHERE (SELECT budget > 0 FROM sample) ORDER BY items.id ASC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $2::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $2::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT items.id, items.id AS sort_key FROM items
  WHERE CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key ASC, id ASC LIMIT 101) AS most LIMIT $2::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.sku, shown.name, shown.description, shown.price, shown.is_active, shown.owner_id, shown.version, shown.created_at, shown.updated_at, page.sort_key
FROM page CROSS JOIN LATERAL (SELECT items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at FROM items WHERE items.id = page.id OFFSET 0) AS shown
ORDER BY page.sort_key ASC, page.id ASC;

-- items.after?sort=-created_at&q
-- $1 q, $2 last_key, $3 last_id, $4 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT items.id, items.created_at AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM items
  WHERE (items.created_at, items.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) ORDER BY items.created_at DESC, items.id DESC LIMIT 200) AS walked) AS numbered
  WHERE hit OR n = 200 LIMIT ($4::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($4::BIGINT) AND max(n) = 200 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($4::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 64) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows * ahead / seen AS remaining, found * 200 > 4 * seen * (hits + 1) AS elsewhere, ($4::BIGINT) / greatest(nullif(hits, 0) / 200::float8, nullif(found, 0) / seen::float8) AS expected, ($4::BIGINT) / least(nullif(hits, 0) / 200::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 10, rows * 6) * (1 - 0) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.0625::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE ahead) + 1 AS ahead, count(*) FILTER (WHERE hit AND ahead) AS found, least(CASE WHEN (to_regclass('items_search_idx') IS NOT NULL AND CASE WHEN (SELECT datctype IN ('C', 'POSIX')
   FROM pg_database WHERE datname = current_database()) THEN ($1::VARCHAR COLLATE "C") ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' ELSE $1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' END) THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('items') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('items') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit, (items.created_at, items.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) AS ahead, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS d0 FROM items
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 200) AS rows FROM pg_class WHERE oid = 'items'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT items.id, items.created_at AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM items
  WHERE (items.created_at, items.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) AND (SELECT budget > 0 FROM sample) ORDER BY items.created_at DESC, items.id DESC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $4::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $4::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT items.id, items.created_at AS sort_key FROM items
  WHERE CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(items.name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(items.name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AND (items.created_at, items.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key DESC, id DESC LIMIT 101) AS most LIMIT $4::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.sku, shown.name, shown.description, shown.price, shown.is_active, shown.owner_id, shown.version, shown.created_at, shown.updated_at, page.sort_key
FROM page CROSS JOIN LATERAL (SELECT items.id, items.sku, items.name, items.description, items.price, items.is_active, items.owner_id, items.version, items.created_at, items.updated_at FROM items WHERE items.id = page.id OFFSET 0) AS shown
ORDER BY page.sort_key DESC, page.id DESC;

-- items.page?total=none
-- $1 limit
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.id AS sort_key
FROM items ORDER BY items.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- items.page?page
-- $1 limit, $2 offset
SELECT page.id, page.sku, page.name, page.description, page.price, page.is_active, page.owner_id, page.version, page.created_at, page.updated_at, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'items') AS counted LEFT OUTER JOIN (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at, items.id AS sort_key
FROM items ORDER BY items.id ASC
 LIMIT $1::BIGINT OFFSET $2::BIGINT) AS page ON true;

-- items.count
-- no arguments
SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'items';

-- items.import.held_owner_id
-- no arguments
SELECT count(*) AS held
FROM (SELECT users.id AS id
FROM users
WHERE users.id IN (SELECT items_stage.owner_id
FROM items_stage) ORDER BY users.id FOR KEY SHARE) AS held;

-- items.import.orphans_owner_id
-- no arguments
WITH gone AS
(DELETE FROM items_stage WHERE items_stage.owner_id IS NOT NULL AND NOT (EXISTS (SELECT *
FROM users
WHERE users.id = items_stage.owner_id)) RETURNING items_stage.n AS n, items_stage.owner_id AS value, null AS first)
 SELECT gone.n, CAST(gone.value AS TEXT) AS value, gone.first, count(*) OVER () AS alike
FROM gone ORDER BY gone.n
 LIMIT 100;

-- items.import.repeated
-- no arguments
WITH firsts AS
(SELECT items_stage.sku AS key, min(items_stage.n) AS first
FROM items_stage
WHERE items_stage.sku IS NOT NULL GROUP BY items_stage.sku
HAVING count(*) > 1),
gone AS
(DELETE FROM items_stage USING firsts WHERE items_stage.sku = firsts.key AND items_stage.n != firsts.first RETURNING items_stage.n AS n, items_stage.sku AS value, firsts.first AS first)
 SELECT gone.n, CAST(gone.value AS TEXT) AS value, gone.first, count(*) OVER () AS alike
FROM gone ORDER BY gone.n
 LIMIT 100;

-- items.import.locked
-- no arguments
SELECT count(*) AS locked
FROM (SELECT items.id AS id
FROM items, items_stage
WHERE items.sku = items_stage.sku ORDER BY items.id FOR NO KEY UPDATE OF items) AS locked;

-- items.import.keyed
-- $1 after
WITH batch AS
(SELECT items_stage.id AS id, items_stage.sku AS sku, items_stage.name AS name, items_stage.description AS description, items_stage.price AS price, items_stage.is_active AS is_active, items_stage.owner_id AS owner_id, items_stage.sku COLLATE "C" AS place
FROM items_stage
WHERE ($1::VARCHAR IS NULL OR (items_stage.sku COLLATE "C") > $1::VARCHAR) AND items_stage.sku IS NOT NULL ORDER BY items_stage.sku COLLATE "C"
 LIMIT 20000),
written AS
(INSERT INTO items (id, sku, name, description, price, is_active, owner_id) OVERRIDING SYSTEM VALUE SELECT batch.id AS id, batch.sku AS sku, batch.name AS name, batch.description AS description, batch.price AS price, batch.is_active AS is_active, batch.owner_id AS owner_id
FROM batch ORDER BY batch.place ON CONFLICT (sku) DO UPDATE SET name = excluded.name, description = excluded.description, price = excluded.price, is_active = excluded.is_active, owner_id = excluded.owner_id, version = (items.version + 1), updated_at = now() WHERE (items.name, items.description, items.price, items.is_active, items.owner_id) IS DISTINCT FROM (excluded.name, excluded.description, excluded.price, excluded.is_active, excluded.owner_id) RETURNING items.version)
 SELECT (SELECT count(*) AS count_1
FROM batch) AS given, count(*) FILTER (WHERE written.version = 1) AS created, count(*) AS written, (SELECT max(batch.place) AS max_1
FROM batch) AS last
FROM written;

-- items.import.keyless
-- $1 after
WITH batch AS
(SELECT items_stage.id AS id, items_stage.sku AS sku, items_stage.name AS name, items_stage.description AS description, items_stage.price AS price, items_stage.is_active AS is_active, items_stage.owner_id AS owner_id, items_stage.n AS place
FROM items_stage
WHERE ($1::BIGINT IS NULL OR items_stage.n > $1::BIGINT) AND items_stage.sku IS NULL ORDER BY items_stage.n
 LIMIT 20000),
written AS
(INSERT INTO items (id, sku, name, description, price, is_active, owner_id) OVERRIDING SYSTEM VALUE SELECT batch.id AS id, batch.sku AS sku, batch.name AS name, batch.description AS description, batch.price AS price, batch.is_active AS is_active, batch.owner_id AS owner_id
FROM batch ORDER BY batch.place RETURNING items.version)
 SELECT (SELECT count(*) AS count_1
FROM batch) AS given, count(*) FILTER (WHERE written.version = 1) AS created, count(*) AS written, (SELECT max(batch.place) AS max_1
FROM batch) AS last
FROM written;

-- items.import.foreign_own
-- $1 owner
WITH gone AS
(DELETE FROM items_stage WHERE EXISTS (SELECT *
FROM items
WHERE items.sku = items_stage.sku AND items.owner_id IS DISTINCT FROM $1::BIGINT) RETURNING items_stage.n AS n, items_stage.sku AS value, null AS first)
 SELECT gone.n, CAST(gone.value AS TEXT) AS value, gone.first, count(*) OVER () AS alike
FROM gone ORDER BY gone.n
 LIMIT 100;

-- items.import.locked_own
-- $1 owner
SELECT count(*) AS locked
FROM (SELECT items.id AS id
FROM items, items_stage
WHERE items.sku = items_stage.sku AND (items.owner_id = $1::BIGINT) IS true ORDER BY items.id FOR NO KEY UPDATE OF items) AS locked;

-- items.import.keyed_own
-- $1 after, $2 owner
WITH batch AS
(SELECT items_stage.id AS id, items_stage.sku AS sku, items_stage.name AS name, items_stage.description AS description, items_stage.price AS price, items_stage.is_active AS is_active, items_stage.owner_id AS owner_id, items_stage.sku COLLATE "C" AS place
FROM items_stage
WHERE ($1::VARCHAR IS NULL OR (items_stage.sku COLLATE "C") > $1::VARCHAR) AND items_stage.sku IS NOT NULL ORDER BY items_stage.sku COLLATE "C"
 LIMIT 20000),
written AS
(INSERT INTO items (id, sku, name, description, price, is_active, owner_id) OVERRIDING SYSTEM VALUE SELECT batch.id AS id, batch.sku AS sku, batch.name AS name, batch.description AS description, batch.price AS price, batch.is_active AS is_active, batch.owner_id AS owner_id
FROM batch ORDER BY batch.place ON CONFLICT (sku) DO UPDATE SET name = excluded.name, description = excluded.description, price = excluded.price, is_active = excluded.is_active, owner_id = excluded.owner_id, version = (items.version + 1), updated_at = now() WHERE (items.name, items.description, items.price, items.is_active, items.owner_id) IS DISTINCT FROM (excluded.name, excluded.description, excluded.price, excluded.is_active, excluded.owner_id) AND (items.owner_id = $2::BIGINT) IS true RETURNING items.version)
 SELECT (SELECT count(*) AS count_1
FROM batch) AS given, count(*) FILTER (WHERE written.version = 1) AS created, count(*) AS written, (SELECT max(batch.place) AS max_1
FROM batch) AS last
FROM written;

-- items.export?format=ndjson
-- no arguments
SELECT row_to_json(line) AS line
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, to_char(timezone('UTC', items.created_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at, to_char(timezone('UTC', items.updated_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS updated_at
FROM items ORDER BY items.id) AS line;

-- items.export?format=csv
-- no arguments
SELECT items.id, items.sku, items.name, items.description, items.price, CAST(items.is_active AS TEXT) AS is_active, items.owner_id, items.version, to_char(timezone('UTC', items.created_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at, to_char(timezone('UTC', items.updated_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS updated_at
FROM items ORDER BY items.id;

-- users.add
-- $1 email, $2 username, $3 full_name, $4 role, $5 is_active
INSERT INTO users (email, username, full_name, role, is_active) VALUES ($1::VARCHAR, $2::VARCHAR, $3::VARCHAR, $4::VARCHAR, $5::BOOLEAN) RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at;

-- users.add_many
-- $1 emails, $2 usernames, $3 full_names, $4 roles, $5 is_actives
INSERT INTO users (email, username, full_name, role, is_active) SELECT anon_1.email, anon_1.username, anon_1.full_name, anon_1.role, anon_1.is_active
FROM unnest(CAST($1::VARCHAR AS TEXT[]), CAST($2::VARCHAR AS TEXT[]), CAST($3::VARCHAR AS TEXT[]), CAST($4::VARCHAR AS TEXT[]), CAST($5::VARCHAR AS BOOLEAN[])) WITH ORDINALITY AS anon_1(email, username, full_name, role, is_active, n) ORDER BY anon_1.n RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at;

-- users.email_taken
-- $1 emails
WITH rows AS
(SELECT anon_1.email AS email, anon_1.n AS n
FROM unnest(CAST($1::VARCHAR AS TEXT[])) WITH ORDINALITY AS anon_1(email, n))
 SELECT rows.n - 1 AS n
FROM rows
WHERE EXISTS (SELECT *
FROM users
WHERE lower(users.email) = lower(rows.email)) ORDER BY rows.n;

-- users.by_id
-- $1 id
SELECT users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at
FROM users
WHERE users.id = $1::BIGINT;

-- users.by_id_many
-- $1 keys
SELECT users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at
FROM users
WHERE users.id = ANY ($1::BIGINT[]);

-- users.replace
-- $1 email, $2 username, $3 full_name, $4 role, $5 is_active, $6 id
UPDATE users SET email=$1::VARCHAR, username=$2::VARCHAR, full_name=$3::VARCHAR, role=$4::VARCHAR, is_active=$5::BOOLEAN, version=(users.version + 1), updated_at=now() WHERE users.id = $6::BIGINT RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at;

-- users.replace_if
-- $1 id, $2 email, $3 username, $4 full_name, $5 role, $6 is_active, $7 versions, $8 excluded
WITH found AS
(SELECT users.version AS version
FROM users
WHERE users.id = $1::BIGINT),
changed AS
(UPDATE users SET email=$2::VARCHAR, username=$3::VARCHAR, full_name=$4::VARCHAR, role=$5::VARCHAR, is_active=$6::BOOLEAN, version=(users.version + 1), updated_at=now() WHERE users.id = $1::BIGINT AND coalesce(users.version = ANY ($7::BIGINT[]), true) AND users.version != ALL ($8::BIGINT[]) RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at)
 SELECT changed.id, changed.email, changed.username, changed.full_name, changed.role, changed.is_active, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- users.replace_own
-- $1 email, $2 username, $3 full_name, $4 is_active, $5 id, $6 owner
UPDATE users SET email=$1::VARCHAR, username=$2::VARCHAR, full_name=$3::VARCHAR, is_active=$4::BOOLEAN, version=(users.version + 1), updated_at=now() WHERE users.id = $5::BIGINT AND (users.id = $6::BIGINT) IS true RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at;

-- users.replace_if_own
-- $1 id, $2 owner, $3 email, $4 username, $5 full_name, $6 is_active, $7 versions, $8 excluded
WITH found AS
(SELECT users.version AS version
FROM users
WHERE users.id = $1::BIGINT AND (users.id = $2::BIGINT) IS true),
changed AS
(UPDATE users SET email=$3::VARCHAR, username=$4::VARCHAR, full_name=$5::VARCHAR, is_active=$6::BOOLEAN, version=(users.version + 1), updated_at=now() WHERE users.id = $1::BIGINT AND (users.id = $2::BIGINT) IS true AND coalesce(users.version = ANY ($7::BIGINT[]), true) AND users.version != ALL ($8::BIGINT[]) RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at)
 SELECT changed.id, changed.email, changed.username, changed.full_name, changed.role, changed.is_active, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- users.change
-- $1 set_email, $2 new_email, $3 set_username, $4 new_username, $5 set_full_name, $6 new_full_name, $7 set_role, $8 new_role, $9 set_is_active, $10 new_is_active, $11 id
UPDATE users SET email=CASE WHEN $1::BOOLEAN THEN $2::VARCHAR ELSE users.email END, username=CASE WHEN $3::BOOLEAN THEN $4::VARCHAR ELSE users.username END, full_name=CASE WHEN $5::BOOLEAN THEN $6::VARCHAR ELSE users.full_name END, role=CASE WHEN $7::BOOLEAN THEN $8::VARCHAR ELSE users.role END, is_active=CASE WHEN $9::BOOLEAN THEN $10::BOOLEAN ELSE users.is_active END, version=(users.version + 1), updated_at=now() WHERE users.id = $11::BIGINT RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at;

-- users.change_if
-- $1 id, $2 set_email, $3 new_email, $4 set_username, $5 new_username, $6 set_full_name, $7 new_full_name, $8 set_role, $9 new_role, $10 set_is_active, $11 new_is_active, $12 versions, $13 excluded
WITH found AS
(SELECT users.version AS version
FROM users
WHERE users.id = $1::BIGINT),
changed AS
(UPDATE users SET email=CASE WHEN $2::BOOLEAN THEN $3::VARCHAR ELSE users.email END, username=CASE WHEN $4::BOOLEAN THEN $5::VARCHAR ELSE users.username END, full_name=CASE WHEN $6::BOOLEAN THEN $7::VARCHAR ELSE users.full_name END, role=CASE WHEN $8::BOOLEAN THEN $9::VARCHAR ELSE users.role END, is_active=CASE WHEN $10::BOOLEAN THEN $11::BOOLEAN ELSE users.is_active END, version=(users.version + 1), updated_at=now() WHERE users.id = $1::BIGINT AND coalesce(users.version = ANY ($12::BIGINT[]), true) AND users.version != ALL ($13::BIGINT[]) RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at)
 SELECT changed.id, changed.email, changed.username, changed.full_name, changed.role, changed.is_active, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- users.change_own
-- $1 set_email, $2 new_email, $3 set_username, $4 new_username, $5 set_full_name, $6 new_full_name, $7 set_is_active, $8 new_is_active, $9 id, $10 owner
UPDATE users SET email=CASE WHEN $1::BOOLEAN THEN $2::VARCHAR ELSE users.email END, username=CASE WHEN $3::BOOLEAN THEN $4::VARCHAR ELSE users.username END, full_name=CASE WHEN $5::BOOLEAN THEN $6::VARCHAR ELSE users.full_name END, is_active=CASE WHEN $7::BOOLEAN THEN $8::BOOLEAN ELSE users.is_active END, version=(users.version + 1), updated_at=now() WHERE users.id = $9::BIGINT AND (users.id = $10::BIGINT) IS true RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at;

-- users.change_if_own
-- $1 id, $2 owner, $3 set_email, $4 new_email, $5 set_username, $6 new_username, $7 set_full_name, $8 new_full_name, $9 set_is_active, $10 new_is_active, $11 versions, $12 excluded
WITH found AS
(SELECT users.version AS version
FROM users
WHERE users.id = $1::BIGINT AND (users.id = $2::BIGINT) IS true),
changed AS
(UPDATE users SET email=CASE WHEN $3::BOOLEAN THEN $4::VARCHAR ELSE users.email END, username=CASE WHEN $5::BOOLEAN THEN $6::VARCHAR ELSE users.username END, full_name=CASE WHEN $7::BOOLEAN THEN $8::VARCHAR ELSE users.full_name END, is_active=CASE WHEN $9::BOOLEAN THEN $10::BOOLEAN ELSE users.is_active END, version=(users.version + 1), updated_at=now() WHERE users.id = $1::BIGINT AND (users.id = $2::BIGINT) IS true AND coalesce(users.version = ANY ($11::BIGINT[]), true) AND users.version != ALL ($12::BIGINT[]) RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at)
 SELECT changed.id, changed.email, changed.username, changed.full_name, changed.role, changed.is_active, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- users.deactivate
-- $1 id
UPDATE users SET is_active=false, version=(users.version + CAST(users.is_active AS INTEGER)), updated_at=CASE WHEN users.is_active THEN now() ELSE users.updated_at END WHERE users.id = $1::BIGINT RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at;

-- users.deactivate_if
-- $1 id, $2 versions, $3 excluded
WITH found AS
(SELECT users.version AS version
FROM users
WHERE users.id = $1::BIGINT),
changed AS
(UPDATE users SET is_active=false, version=(users.version + CAST(users.is_active AS INTEGER)), updated_at=CASE WHEN users.is_active THEN now() ELSE users.updated_at END WHERE users.id = $1::BIGINT AND coalesce(users.version = ANY ($2::BIGINT[]), true) AND users.version != ALL ($3::BIGINT[]) RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at)
 SELECT changed.id, changed.email, changed.username, changed.full_name, changed.role, changed.is_active, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- users.deactivate_own
-- $1 id, $2 owner
UPDATE users SET is_active=false, version=(users.version + CAST(users.is_active AS INTEGER)), updated_at=CASE WHEN users.is_active THEN now() ELSE users.updated_at END WHERE users.id = $1::BIGINT AND (users.id = $2::BIGINT) IS true RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at;

-- users.deactivate_if_own
-- $1 id, $2 owner, $3 versions, $4 excluded
WITH found AS
(SELECT users.version AS version
FROM users
WHERE users.id = $1::BIGINT AND (users.id = $2::BIGINT) IS true),
changed AS
(UPDATE users SET is_active=false, version=(users.version + CAST(users.is_active AS INTEGER)), updated_at=CASE WHEN users.is_active THEN now() ELSE users.updated_at END WHERE users.id = $1::BIGINT AND (users.id = $2::BIGINT) IS true AND coalesce(users.version = ANY ($3::BIGINT[]), true) AND users.version != ALL ($4::BIGINT[]) RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at)
 SELECT changed.id, changed.email, changed.username, changed.full_name, changed.role, changed.is_active, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- users.remove
-- $1 id
DELETE FROM users WHERE users.id = $1::BIGINT RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at;

-- users.remove_if
-- $1 id, $2 versions, $3 excluded
WITH found AS
(SELECT users.version AS version
FROM users
WHERE users.id = $1::BIGINT),
changed AS
(DELETE FROM users WHERE users.id = $1::BIGINT AND coalesce(users.version = ANY ($2::BIGINT[]), true) AND users.version != ALL ($3::BIGINT[]) RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at)
 SELECT changed.id, changed.email, changed.username, changed.full_name, changed.role, changed.is_active, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- users.remove_own
-- $1 id, $2 owner
DELETE FROM users WHERE users.id = $1::BIGINT AND (users.id = $2::BIGINT) IS true RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at;

-- users.remove_if_own
-- $1 id, $2 owner, $3 versions, $4 excluded
WITH found AS
(SELECT users.version AS version
FROM users
WHERE users.id = $1::BIGINT AND (users.id = $2::BIGINT) IS true),
changed AS
(DELETE FROM users WHERE users.id = $1::BIGINT AND (users.id = $2::BIGINT) IS true AND coalesce(users.version = ANY ($3::BIGINT[]), true) AND users.version != ALL ($4::BIGINT[]) RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at)
 SELECT changed.id, changed.email, changed.username, changed.full_name, changed.role, changed.is_active, changed.version, changed.created_at, changed.updated_at, found.version AS found
FROM found LEFT OUTER JOIN changed ON true;

-- users.change_many
-- $1 ids, $2 versions, $3 softs, $4 set_emails, $5 new_emails, $6 set_usernames, $7 new_usernames, $8 set_full_names, $9 new_full_names, $10 set_roles, $11 new_roles, $12 set_is_actives, $13 new_is_actives
UPDATE users SET email=CASE WHEN anon_1.set_email THEN anon_1.new_email ELSE users.email END, username=CASE WHEN anon_1.set_username THEN anon_1.new_username ELSE users.username END, full_name=CASE WHEN anon_1.set_full_name THEN anon_1.new_full_name ELSE users.full_name END, role=CASE WHEN anon_1.set_role THEN anon_1.new_role ELSE users.role END, is_active=CASE WHEN anon_1.set_is_active THEN anon_1.new_is_active ELSE users.is_active END, version=(users.version + CAST(anon_1.soft IS NOT true OR users.is_active AS INTEGER)), updated_at=CASE WHEN (anon_1.soft IS NOT true OR users.is_active) THEN now() ELSE users.updated_at END FROM unnest(CAST($1::VARCHAR AS BIGINT[]), CAST($2::VARCHAR AS BIGINT[]), CAST($3::VARCHAR AS BOOLEAN[]), CAST($4::VARCHAR AS BOOLEAN[]), CAST($5::VARCHAR AS TEXT[]), CAST($6::VARCHAR AS BOOLEAN[]), CAST($7::VARCHAR AS TEXT[]), CAST($8::VARCHAR AS BOOLEAN[]), CAST($9::VARCHAR AS TEXT[]), CAST($10::VARCHAR AS BOOLEAN[]), CAST($11::VARCHAR AS TEXT[]), CAST($12::VARCHAR AS BOOLEAN[]), CAST($13::VARCHAR AS BOOLEAN[])) WITH ORDINALITY AS anon_1(id, version, soft, set_email, new_email, set_username, new_username, set_full_name, new_full_name, set_role, new_role, set_is_active, new_is_active, n) WHERE users.id = anon_1.id AND coalesce(users.version = anon_1.version, true) RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at;

-- users.change_many_own
-- $1 ids, $2 versions, $3 softs, $4 owners, $5 set_emails, $6 new_emails, $7 set_usernames, $8 new_usernames, $9 set_full_names, $10 new_full_names, $11 set_roles, $12 new_roles, $13 set_is_actives, $14 new_is_actives
UPDATE users SET email=CASE WHEN anon_1.set_email THEN anon_1.new_email ELSE users.email END, username=CASE WHEN anon_1.set_username THEN anon_1.new_username ELSE users.username END, full_name=CASE WHEN anon_1.set_full_name THEN anon_1.new_full_name ELSE users.full_name END, role=CASE WHEN (anon_1.owner IS NULL AND anon_1.set_role) THEN anon_1.new_role ELSE users.role END, is_active=CASE WHEN anon_1.set_is_active THEN anon_1.new_is_active ELSE users.is_active END, version=(users.version + CAST(anon_1.soft IS NOT true OR users.is_active AS INTEGER)), updated_at=CASE WHEN (anon_1.soft IS NOT true OR users.is_active) THEN now() ELSE users.updated_at END FROM unnest(CAST($1::VARCHAR AS BIGINT[]), CAST($2::VARCHAR AS BIGINT[]), CAST($3::VARCHAR AS BOOLEAN[]), CAST($4::VARCHAR AS BIGINT[]), CAST($5::VARCHAR AS BOOLEAN[]), CAST($6::VARCHAR AS TEXT[]), CAST($7::VARCHAR AS BOOLEAN[]), CAST($8::VARCHAR AS TEXT[]), CAST($9::VARCHAR AS BOOLEAN[]), CAST($10::VARCHAR AS TEXT[]), CAST($11::VARCHAR AS BOOLEAN[]), CAST($12::VARCHAR AS TEXT[]), CAST($13::VARCHAR AS BOOLEAN[]), CAST($14::VARCHAR AS BOOLEAN[])) WITH ORDINALITY AS anon_1(id, version, soft, owner, set_email, new_email, set_username, new_username, set_full_name, new_full_name, set_role, new_role, set_is_active, new_is_active, n) WHERE users.id = anon_1.id AND (anon_1.owner IS NULL OR users.id = anon_1.owner) AND coalesce(users.version = anon_1.version, true) RETURNING users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at;

-- users.upsert
-- $1 emails, $2 usernames, $3 full_names, $4 roles, $5 is_actives
WITH rows AS
(SELECT anon_1.email AS email, anon_1.username AS username, anon_1.full_name AS full_name, anon_1.role AS role, anon_1.is_active AS is_active, anon_1.n AS n
FROM unnest(CAST($1::VARCHAR AS TEXT[]), CAST($2::VARCHAR AS TEXT[]), CAST($3::VARCHAR AS TEXT[]), CAST($4::VARCHAR AS TEXT[]), CAST($5::VARCHAR AS BOOLEAN[])) WITH ORDINALITY AS anon_1(email, username, full_name, role, is_active, n)),
existing AS
(SELECT rows.email AS email, rows.username AS username, rows.full_name AS full_name, rows.role AS role, rows.is_active AS is_active, rows.n AS n, users.id AS id, users.version AS version, (users.email, users.username, users.full_name, users.role, users.is_active) IS DISTINCT FROM (rows.email, rows.username, rows.full_name, rows.role, rows.is_active) AS differs
FROM rows, users
WHERE lower(users.email) = lower(rows.email) ORDER BY users.id FOR NO KEY UPDATE OF users),
updated AS
(UPDATE users SET email=existing.email, username=existing.username, full_name=existing.full_name, role=existing.role, is_active=existing.is_active, version=(users.version + 1), updated_at=now() FROM existing WHERE users.id = existing.id AND existing.differs),
numbered AS
(SELECT nextval((SELECT pg_get_serial_sequence('users', 'id')::regclass AS sequence)) AS id, "new".email AS email, "new".username AS username, "new".full_name AS full_name, "new".role AS role, "new".is_active AS is_active
FROM (SELECT rows.email AS email, rows.username AS username, rows.full_name AS full_name, rows.role AS role, rows.is_active AS is_active
FROM rows
WHERE (rows.n NOT IN (SELECT existing.n
FROM existing)) ORDER BY rows.n) AS "new"),
inserted AS
(INSERT INTO users (id, email, username, full_name, role, is_active) OVERRIDING SYSTEM VALUE SELECT numbered.id AS id, numbered.email AS email, numbered.username AS username, numbered.full_name AS full_name, numbered.role AS role, numbered.is_active AS is_active
FROM numbered ORDER BY lower(numbered.email) COLLATE "C" RETURNING users.id, users.email)
 SELECT existing.id, existing.email, existing.version + CAST(existing.differs AS INTEGER) AS version, existing.differs
FROM existing UNION ALL SELECT inserted.id, inserted.email, 1, CAST(NULL AS BOOLEAN) AS anon_2
FROM inserted;

-- users.username_taken
-- $1 usernames, $2 emails
WITH rows AS
(SELECT anon_1.username AS username, anon_1.email AS email, anon_1.n AS n
FROM unnest(CAST($1::VARCHAR AS TEXT[]), CAST($2::VARCHAR AS TEXT[])) WITH ORDINALITY AS anon_1(username, email, n))
 SELECT rows.n - 1 AS n
FROM rows
WHERE EXISTS (SELECT *
FROM users
WHERE lower(users.username) = lower(rows.username) AND lower(users.email) != lower(rows.email)) ORDER BY rows.n;

-- users.page
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'users') AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users ORDER BY users.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- users.start
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users ORDER BY users.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- users.after
-- $1 last_id, $2 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users
WHERE users.id > $1::BIGINT ORDER BY users.id ASC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- users.page?sort=-id
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'users') AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users ORDER BY users.id DESC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- users.start?sort=-id
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users ORDER BY users.id DESC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- users.after?sort=-id
-- $1 last_id, $2 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users
WHERE users.id < $1::BIGINT ORDER BY users.id DESC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- users.page?sort=created_at
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'users') AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.created_at AS sort_key
FROM users ORDER BY users.created_at ASC, users.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- users.start?sort=created_at
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.created_at AS sort_key
FROM users ORDER BY users.created_at ASC, users.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- users.after?sort=created_at
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.created_at AS sort_key
FROM users
WHERE (users.created_at, users.id) > ($1::TIMESTAMP WITH TIME ZONE, $2::BIGINT) ORDER BY users.created_at ASC, users.id ASC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- users.page?sort=-created_at
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'users') AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.created_at AS sort_key
FROM users ORDER BY users.created_at DESC, users.id DESC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- users.start?sort=-created_at
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.created_at AS sort_key
FROM users ORDER BY users.created_at DESC, users.id DESC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- users.after?sort=-created_at
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.created_at AS sort_key
FROM users
WHERE (users.created_at, users.id) < ($1::TIMESTAMP WITH TIME ZONE, $2::BIGINT) ORDER BY users.created_at DESC, users.id DESC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- users.page?sort=username
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'users') AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.username COLLATE "C" AS sort_key
FROM users ORDER BY users.username COLLATE "C" ASC, users.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- users.start?sort=username
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.username COLLATE "C" AS sort_key
FROM users ORDER BY users.username COLLATE "C" ASC, users.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- users.after?sort=username
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.username COLLATE "C" AS sort_key
FROM users
WHERE (users.username COLLATE "C", users.id) > ($1::VARCHAR COLLATE "C", $2::BIGINT) ORDER BY users.username COLLATE "C" ASC, users.id ASC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- users.page?sort=-username
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'users') AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.username COLLATE "C" AS sort_key
FROM users ORDER BY users.username COLLATE "C" DESC, users.id DESC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- users.start?sort=-username
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.username COLLATE "C" AS sort_key
FROM users ORDER BY users.username COLLATE "C" DESC, users.id DESC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- users.after?sort=-username
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.username COLLATE "C" AS sort_key
FROM users
WHERE (users.username COLLATE "C", users.id) < ($1::VARCHAR COLLATE "C", $2::BIGINT) ORDER BY users.username COLLATE "C" DESC, users.id DESC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- users.page?is_active=true
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.active), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'users') AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users
WHERE users.is_active ORDER BY users.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- users.page?is_active=false
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total) - sum(totals.active), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'users') AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users
WHERE NOT users.is_active ORDER BY users.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- users.page?role=user
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM users
WHERE users.role = 'user') AS matching) AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users
WHERE users.role = 'user' ORDER BY users.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- users.page?role=admin
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM users
WHERE users.role = 'admin') AS matching) AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users
WHERE users.role = 'admin' ORDER BY users.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- users.page?q
-- $1 q, $2 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT users.id, users.id AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM users ORDER BY users.id ASC LIMIT 500) AS walked) AS numbered
  WHERE hit OR n = 500 LIMIT ($2::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($2::BIGINT) AND max(n) = 500 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($2::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 16) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows AS remaining, found * 500 > 4 * seen * (hits + 1) AS elsewhere, ($2::BIGINT) / greatest(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS expected, ($2::BIGINT) / least(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 20, rows * 16) * (1 - 1) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.0469::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE hit) AS found, least(CASE WHEN (to_regclass('users_search_idx') IS NOT NULL AND CASE WHEN (SELECT datctype IN ('C', 'POSIX')
   FROM pg_database WHERE datname = current_database()) THEN ($1::VARCHAR COLLATE "C") ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' ELSE $1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' END) THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('users') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('users') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS d0 FROM users
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 500) AS rows FROM pg_class WHERE oid = 'users'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT users.id, users.id AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM users
  WHERE (SELECT budget > 0 FROM sample) ORDER BY users.id ASC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $2::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $2::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT users.id, users.id AS sort_key FROM users
  WHERE CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key ASC, id ASC LIMIT 101) AS most LIMIT $2::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.email, shown.username, shown.full_name, shown.role, shown.is_active, page.sort_key, counted.total
FROM (SELECT CASE WHEN (SELECT needed FROM gather) THEN (SELECT count(*) FROM every) ELSE (SELECT count(*) FROM users
  WHERE CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END) END AS total) AS counted LEFT JOIN (page CROSS JOIN LATERAL (SELECT users.id, users.email, users.username, users.full_name, users.role, users.is_active FROM users WHERE users.id = page.id OFFSET 0) AS shown) ON true
ORDER BY page.sort_key ASC, page.id ASC;

-- users.page?q&total=estimated
-- $1 q, $2 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT users.id, users.id AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM users ORDER BY users.id ASC LIMIT 500) AS walked) AS numbered
  WHERE hit OR n = 500 LIMIT ($2::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($2::BIGINT) AND max(n) = 500 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($2::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 16) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows AS remaining, found * 500 > 4 * seen * (hits + 1) AS elsewhere, ($2::BIGINT) / greatest(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS expected, ($2::BIGINT) / least(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 20, rows * 16) * (1 - least(10000 * seen / (rows * (found + 1)), 1)) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.0469::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE hit) AS found, least(CASE WHEN (to_regclass('users_search_idx') IS NOT NULL AND CASE WHEN (SELECT datctype IN ('C', 'POSIX')
   FROM pg_database WHERE datname = current_database()) THEN ($1::VARCHAR COLLATE "C") ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' ELSE $1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' END) THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('users') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('users') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS d0 FROM users
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 500) AS rows FROM pg_class WHERE oid = 'users'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT users.id, users.id AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM users
  WHERE (SELECT budget > 0 FROM sample) ORDER BY users.id ASC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $2::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $2::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT users.id, users.id AS sort_key FROM users
  WHERE CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key ASC, id ASC LIMIT 101) AS most LIMIT $2::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.email, shown.username, shown.full_name, shown.role, shown.is_active, page.sort_key, counted.total
FROM (SELECT CASE WHEN (SELECT needed FROM gather) THEN least((SELECT count(*) FROM every), 10000) ELSE (SELECT count(*) FROM (SELECT FROM users
  WHERE CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END LIMIT 10000) AS matching) END AS total) AS counted LEFT JOIN (page CROSS JOIN LATERAL (SELECT users.id, users.email, users.username, users.full_name, users.role, users.is_active FROM users WHERE users.id = page.id OFFSET 0) AS shown) ON true
ORDER BY page.sort_key ASC, page.id ASC;

-- users.page?q&total=none
-- $1 q, $2 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT users.id, users.id AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM users ORDER BY users.id ASC LIMIT 500) AS walked) AS numbered
  WHERE hit OR n = 500 LIMIT ($2::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($2::BIGINT) AND max(n) = 500 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($2::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 16) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows AS remaining, found * 500 > 4 * seen * (hits + 1) AS elsewhere, ($2::BIGINT) / greatest(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS expected, ($2::BIGINT) / least(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 20, rows * 16) * (1 - 0) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.0469::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE hit) AS found, least(CASE WHEN (to_regclass('users_search_idx') IS NOT NULL AND CASE WHEN (SELECT datctype IN ('C', 'POSIX')
   FROM pg_database WHERE datname = current_database()) THEN ($1::VARCHAR COLLATE "C") ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' ELSE $1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' END) THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('users') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('users') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS d0 FROM users
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 500) AS rows FROM pg_class WHERE oid = 'users'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT users.id, users.id AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM users
  WHERE (SELECT budget > 0 FROM sample) ORDER BY users.id ASC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $2::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $2::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT users.id, users.id AS sort_key FROM users
  WHERE CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key ASC, id ASC LIMIT 101) AS most LIMIT $2::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.email, shown.username, shown.full_name, shown.role, shown.is_active, page.sort_key
FROM page CROSS JOIN LATERAL (SELECT users.id, users.email, users.username, users.full_name, users.role, users.is_active FROM users WHERE users.id = page.id OFFSET 0) AS shown
ORDER BY page.sort_key ASC, page.id ASC;

-- users.after?sort=-created_at&q
-- $1 q, $2 last_key, $3 last_id, $4 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT users.id, users.created_at AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM users
  WHERE (users.created_at, users.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) ORDER BY users.created_at DESC, users.id DESC LIMIT 200) AS walked) AS numbered
  WHERE hit OR n = 200 LIMIT ($4::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($4::BIGINT) AND max(n) = 200 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($4::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 64) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows * ahead / seen AS remaining, found * 200 > 4 * seen * (hits + 1) AS elsewhere, ($4::BIGINT) / greatest(nullif(hits, 0) / 200::float8, nullif(found, 0) / seen::float8) AS expected, ($4::BIGINT) / least(nullif(hits, 0) / 200::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 20, rows * 16) * (1 - 0) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.0341::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE ahead) + 1 AS ahead, count(*) FILTER (WHERE hit AND ahead) AS found, least(CASE WHEN (to_regclass('users_search_idx') IS NOT NULL AND CASE WHEN (SELECT datctype IN ('C', 'POSIX')
   FROM pg_database WHERE datname = current_database()) THEN ($1::VARCHAR COLLATE "C") ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' ELSE $1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].' END) THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('users') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('users') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit, (users.created_at, users.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) AS ahead, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS d0 FROM users
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 200) AS rows FROM pg_class WHERE oid = 'users'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT users.id, users.created_at AS sort_key, CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AS hit
  FROM users
  WHERE (users.created_at, users.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) AND (SELECT budget > 0 FROM sample) ORDER BY users.created_at DESC, users.id DESC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $4::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $4::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT users.id, users.created_at AS sort_key FROM users
  WHERE CASE WHEN ($1::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($1::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($1::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($1::VARCHAR) ESCAPE '\' END AND (users.created_at, users.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key DESC, id DESC LIMIT 101) AS most LIMIT $4::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.email, shown.username, shown.full_name, shown.role, shown.is_active, page.sort_key
FROM page CROSS JOIN LATERAL (SELECT users.id, users.email, users.username, users.full_name, users.role, users.is_active FROM users WHERE users.id = page.id OFFSET 0) AS shown
ORDER BY page.sort_key DESC, page.id DESC;

-- users.page?total=none
-- $1 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users ORDER BY users.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- users.page?page
-- $1 limit, $2 offset
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT CAST(coalesce(sum(totals.total), 0) AS BIGINT) AS total
FROM totals
WHERE totals.name = 'users') AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users ORDER BY users.id ASC
 LIMIT $1::BIGINT OFFSET $2::BIGINT) AS page ON true;

-- users.page_own
-- $1 owner, $2 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM users
WHERE users.id = $1::BIGINT) AS matching) AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users
WHERE users.id = $1::BIGINT ORDER BY users.id ASC
 LIMIT 101) AS page ON true
 LIMIT $2::BIGINT;

-- users.page_own?sort=created_at
-- $1 owner, $2 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM users
WHERE users.id = $1::BIGINT) AS matching) AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.created_at AS sort_key
FROM users
WHERE users.id = $1::BIGINT ORDER BY users.created_at ASC, users.id ASC
 LIMIT 101) AS page ON true
 LIMIT $2::BIGINT;

-- users.page_own?sort=username
-- $1 owner, $2 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM users
WHERE users.id = $1::BIGINT) AS matching) AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.username COLLATE "C" AS sort_key
FROM users
WHERE users.id = $1::BIGINT ORDER BY users.username COLLATE "C" ASC, users.id ASC
 LIMIT 101) AS page ON true
 LIMIT $2::BIGINT;

-- users.start_own
-- $1 owner, $2 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users
WHERE users.id = $1::BIGINT ORDER BY users.id ASC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- users.after_own
-- $1 owner, $2 last_id, $3 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key
FROM (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users
WHERE users.id = $1::BIGINT AND users.id > $2::BIGINT ORDER BY users.id ASC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- users.page_own?q
-- $1 owner, $2 q, $3 limit
SELECT page.id, page.email, page.username, page.full_name, page.role, page.is_active, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM users
WHERE users.id = $1::BIGINT AND CASE WHEN ($2::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($2::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($2::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($2::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($2::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($2::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($2::VARCHAR) ESCAPE '\' END) AS matching) AS counted LEFT OUTER JOIN (SELECT users.id AS id, users.email AS email, users.username AS username, users.full_name AS full_name, users.role AS role, users.is_active AS is_active, users.id AS sort_key
FROM users
WHERE users.id = $1::BIGINT AND CASE WHEN ($2::VARCHAR ~ '[[:alnum:]]{3}|.[^[:alnum:]][[:alnum:]]|[[:alnum:]]{2}[^[:alnum:]].') THEN lower(users.username) LIKE lower($2::VARCHAR) ESCAPE '\' OR lower(users.email) LIKE lower($2::VARCHAR) ESCAPE '\' OR lower(users.full_name) LIKE lower($2::VARCHAR) ESCAPE '\' ELSE (lower(users.username) COLLATE "C") LIKE lower($2::VARCHAR) ESCAPE '\' OR (lower(users.email) COLLATE "C") LIKE lower($2::VARCHAR) ESCAPE '\' OR (lower(users.full_name) COLLATE "C") LIKE lower($2::VARCHAR) ESCAPE '\' END ORDER BY users.id ASC
 LIMIT 101) AS page ON true
 LIMIT $3::BIGINT;

-- keys.user_exists
-- $1 id
SELECT users.id
FROM users
WHERE users.id = $1::BIGINT;

-- keys.newest_by_user
-- $1 parents
SELECT newest.id, newest.user_id, newest.name, newest.prefix, newest.scopes, newest.expires_at, newest.last_used_at, newest.created_at, given.id AS parent, counted.n AS total
FROM unnest($1::BIGINT[]) AS given(id) JOIN LATERAL (SELECT count(*) AS n
FROM keys
WHERE keys.user_id = given.id) AS counted ON true LEFT OUTER JOIN LATERAL (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at
FROM keys
WHERE keys.user_id = given.id ORDER BY keys.id DESC
 LIMIT 100) AS newest ON true;

-- keys.by_prefix
-- $1 prefix
SELECT stored_keys.id, stored_keys.user_id, stored_keys.prefix, stored_keys.secret_hash, stored_keys.scopes, stored_keys.seconds_left, stored_keys.role
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.prefix AS prefix, keys.secret_hash AS secret_hash, keys.scopes AS scopes, CAST(EXTRACT(epoch FROM keys.expires_at - now()) AS DOUBLE PRECISION) AS seconds_left, users.role AS role
FROM keys JOIN users ON users.id = keys.user_id
WHERE users.is_active) AS stored_keys
WHERE stored_keys.prefix = $1::VARCHAR;

-- keys.by_prefix_many
-- $1 keys
SELECT stored_keys.id, stored_keys.user_id, stored_keys.prefix, stored_keys.secret_hash, stored_keys.scopes, stored_keys.seconds_left, stored_keys.role
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.prefix AS prefix, keys.secret_hash AS secret_hash, keys.scopes AS scopes, CAST(EXTRACT(epoch FROM keys.expires_at - now()) AS DOUBLE PRECISION) AS seconds_left, users.role AS role
FROM keys JOIN users ON users.id = keys.user_id
WHERE users.is_active) AS stored_keys
WHERE stored_keys.prefix = ANY ($1::TEXT[]);

-- keys.lock_owner
-- $1 id
SELECT users.id, users.role, users.is_active
FROM users
WHERE users.id = $1::BIGINT FOR NO KEY UPDATE;

-- keys.issue
-- $1 user_id, $2 name, $3 prefix, $4 secret_hash, $5 scopes, $6 expires_at
INSERT INTO keys (user_id, name, prefix, secret_hash, scopes, expires_at) SELECT $1::BIGINT AS anon_1, $2::VARCHAR AS anon_2, $3::VARCHAR AS anon_3, $4::BYTEA AS anon_4, $5::TEXT[] AS anon_5, $6::TIMESTAMP WITH TIME ZONE AS anon_6
WHERE (SELECT count(*) AS count_1
FROM keys
WHERE keys.user_id = $1::BIGINT AND (keys.expires_at IS NULL OR keys.expires_at > now())) < 20 RETURNING keys.id, keys.user_id, keys.name, keys.prefix, keys.scopes, keys.expires_at, keys.last_used_at, keys.created_at;

-- keys.revoke
-- $1 id, $2 user_id
DELETE FROM keys WHERE keys.id = $1::BIGINT AND keys.user_id = $2::BIGINT RETURNING keys.id, keys.user_id;

-- keys.revoke_any
-- $1 id
DELETE FROM keys WHERE keys.id = $1::BIGINT RETURNING keys.id, keys.user_id;

-- keys.use
-- $1 ids
WITH unwritten AS
(SELECT keys.id AS id
FROM keys
WHERE keys.id = ANY ($1::BIGINT[]) AND (keys.last_used_at IS NULL OR keys.last_used_at < now() - interval '1 minute') ORDER BY keys.id FOR NO KEY UPDATE SKIP LOCKED)
 UPDATE keys SET last_used_at=now() FROM unwritten WHERE keys.id = unwritten.id RETURNING keys.id, keys.user_id;

-- keys.user_by_email
-- $1 email
SELECT users.id
FROM users
WHERE lower(users.email) = lower($1::VARCHAR);

-- keys.every
-- no arguments
SELECT keys.id, users.email, keys.name, keys.prefix, keys.scopes, keys.expires_at, keys.last_used_at, users.is_active AND (keys.expires_at IS NULL OR keys.expires_at > now()) AS valid
FROM keys JOIN users ON users.id = keys.user_id ORDER BY keys.id;

-- keys.of_user
-- $1 user_id
SELECT keys.id, users.email, keys.name, keys.prefix, keys.scopes, keys.expires_at, keys.last_used_at, users.is_active AND (keys.expires_at IS NULL OR keys.expires_at > now()) AS valid
FROM keys JOIN users ON users.id = keys.user_id
WHERE keys.user_id = $1::BIGINT ORDER BY keys.id;

-- keys.exist
-- no arguments
SELECT EXISTS (SELECT keys.id
FROM keys) AS exist;

-- keys.page
-- $1 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM keys) AS matching) AS counted LEFT OUTER JOIN (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys ORDER BY keys.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- keys.start
-- $1 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys ORDER BY keys.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- keys.after
-- $1 last_id, $2 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys
WHERE keys.id > $1::BIGINT ORDER BY keys.id ASC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- keys.page?sort=-id
-- $1 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM keys) AS matching) AS counted LEFT OUTER JOIN (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys ORDER BY keys.id DESC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- keys.start?sort=-id
-- $1 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys ORDER BY keys.id DESC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- keys.after?sort=-id
-- $1 last_id, $2 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys
WHERE keys.id < $1::BIGINT ORDER BY keys.id DESC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- keys.page?sort=created_at
-- $1 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM keys) AS matching) AS counted LEFT OUTER JOIN (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.created_at AS sort_key
FROM keys ORDER BY keys.created_at ASC, keys.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- keys.start?sort=created_at
-- $1 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.created_at AS sort_key
FROM keys ORDER BY keys.created_at ASC, keys.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- keys.after?sort=created_at
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.created_at AS sort_key
FROM keys
WHERE (keys.created_at, keys.id) > ($1::TIMESTAMP WITH TIME ZONE, $2::BIGINT) ORDER BY keys.created_at ASC, keys.id ASC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- keys.page?sort=-created_at
-- $1 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM keys) AS matching) AS counted LEFT OUTER JOIN (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.created_at AS sort_key
FROM keys ORDER BY keys.created_at DESC, keys.id DESC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- keys.start?sort=-created_at
-- $1 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.created_at AS sort_key
FROM keys ORDER BY keys.created_at DESC, keys.id DESC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- keys.after?sort=-created_at
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.created_at AS sort_key
FROM keys
WHERE (keys.created_at, keys.id) < ($1::TIMESTAMP WITH TIME ZONE, $2::BIGINT) ORDER BY keys.created_at DESC, keys.id DESC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- keys.page?user_id
-- $1 user_id, $2 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM keys
WHERE keys.user_id = $1::BIGINT) AS matching) AS counted LEFT OUTER JOIN (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys
WHERE keys.user_id = $1::BIGINT ORDER BY keys.id ASC
 LIMIT 101) AS page ON true
 LIMIT $2::BIGINT;

-- keys.page?user_id&total=estimated
-- $1 user_id, $2 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM keys
WHERE keys.user_id = $1::BIGINT
 LIMIT 10000) AS matching) AS counted LEFT OUTER JOIN (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys
WHERE keys.user_id = $1::BIGINT ORDER BY keys.id ASC
 LIMIT 101) AS page ON true
 LIMIT $2::BIGINT;

-- keys.page?user_id&total=none
-- $1 user_id, $2 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys
WHERE keys.user_id = $1::BIGINT ORDER BY keys.id ASC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- keys.after?sort=-created_at&user_id
-- $1 user_id, $2 last_key, $3 last_id, $4 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT keys.id, keys.created_at AS sort_key, keys.user_id = $1::BIGINT AS hit
  FROM keys
  WHERE (keys.created_at, keys.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) ORDER BY keys.created_at DESC, keys.id DESC LIMIT 200) AS walked) AS numbered
  WHERE hit OR n = 200 LIMIT ($4::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($4::BIGINT) AND max(n) = 200 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($4::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 64) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows * ahead / seen AS remaining, found * 200 > 4 * seen * (hits + 1) AS elsewhere, ($4::BIGINT) / greatest(nullif(hits, 0) / 200::float8, nullif(found, 0) / seen::float8) AS expected, ($4::BIGINT) / least(nullif(hits, 0) / 200::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 5, rows * 1) * (1 - 0) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.1071::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE ahead) + 1 AS ahead, count(*) FILTER (WHERE hit AND ahead) AS found, least(CASE WHEN true THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('keys') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('keys') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT keys.user_id = $1::BIGINT AS hit, (keys.created_at, keys.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) AS ahead, keys.user_id = $1::BIGINT AS d0 FROM keys
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 200) AS rows FROM pg_class WHERE oid = 'keys'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT keys.id, keys.created_at AS sort_key, keys.user_id = $1::BIGINT AS hit
  FROM keys
  WHERE (keys.created_at, keys.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) AND (SELECT budget > 0 FROM sample) ORDER BY keys.created_at DESC, keys.id DESC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $4::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $4::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT keys.id, keys.created_at AS sort_key FROM keys
  WHERE keys.user_id = $1::BIGINT AND (keys.created_at, keys.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key DESC, id DESC LIMIT 101) AS most LIMIT $4::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.user_id, shown.name, shown.prefix, shown.scopes, shown.expires_at, shown.last_used_at, shown.created_at, page.sort_key
FROM page CROSS JOIN LATERAL (SELECT keys.id, keys.user_id, keys.name, keys.prefix, keys.scopes, keys.expires_at, keys.last_used_at, keys.created_at FROM keys WHERE keys.id = page.id OFFSET 0) AS shown
ORDER BY page.sort_key DESC, page.id DESC;

-- keys.page?total=none
-- $1 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys ORDER BY keys.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- keys.page?page
-- $1 limit, $2 offset
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM keys) AS matching) AS counted LEFT OUTER JOIN (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys ORDER BY keys.id ASC
 LIMIT $1::BIGINT OFFSET $2::BIGINT) AS page ON true;

-- keys.page_own
-- $1 owner, $2 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM keys
WHERE keys.user_id = $1::BIGINT) AS matching) AS counted LEFT OUTER JOIN (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys
WHERE keys.user_id = $1::BIGINT ORDER BY keys.id ASC
 LIMIT 101) AS page ON true
 LIMIT $2::BIGINT;

-- keys.page_own?sort=created_at
-- $1 owner, $2 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT keys.id, keys.created_at AS sort_key, keys.user_id = $1::BIGINT AS hit
  FROM keys ORDER BY keys.created_at ASC, keys.id ASC LIMIT 200) AS walked) AS numbered
  WHERE hit OR n = 200 LIMIT ($2::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($2::BIGINT) AND max(n) = 200 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($2::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 64) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows AS remaining, found * 200 > 4 * seen * (hits + 1) AS elsewhere, ($2::BIGINT) / greatest(nullif(hits, 0) / 200::float8, nullif(found, 0) / seen::float8) AS expected, ($2::BIGINT) / least(nullif(hits, 0) / 200::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 5, rows * 1) * (1 - 1) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.1071::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE hit) AS found, least(CASE WHEN true THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('keys') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('keys') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT keys.user_id = $1::BIGINT AS hit, keys.user_id = $1::BIGINT AS d0 FROM keys
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 200) AS rows FROM pg_class WHERE oid = 'keys'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT keys.id, keys.created_at AS sort_key, keys.user_id = $1::BIGINT AS hit
  FROM keys
  WHERE (SELECT budget > 0 FROM sample) ORDER BY keys.created_at ASC, keys.id ASC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $2::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $2::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT keys.id, keys.created_at AS sort_key FROM keys
  WHERE keys.user_id = $1::BIGINT AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key ASC, id ASC LIMIT 101) AS most LIMIT $2::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.user_id, shown.name, shown.prefix, shown.scopes, shown.expires_at, shown.last_used_at, shown.created_at, page.sort_key, counted.total
FROM (SELECT CASE WHEN (SELECT needed FROM gather) THEN (SELECT count(*) FROM every) ELSE (SELECT count(*) FROM keys
  WHERE keys.user_id = $1::BIGINT) END AS total) AS counted LEFT JOIN (page CROSS JOIN LATERAL (SELECT keys.id, keys.user_id, keys.name, keys.prefix, keys.scopes, keys.expires_at, keys.last_used_at, keys.created_at FROM keys WHERE keys.id = page.id OFFSET 0) AS shown) ON true
ORDER BY page.sort_key ASC, page.id ASC;

-- keys.start_own
-- $1 owner, $2 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys
WHERE keys.user_id = $1::BIGINT ORDER BY keys.id ASC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- keys.after_own
-- $1 owner, $2 last_id, $3 limit
SELECT page.id, page.user_id, page.name, page.prefix, page.scopes, page.expires_at, page.last_used_at, page.created_at, page.sort_key
FROM (SELECT keys.id AS id, keys.user_id AS user_id, keys.name AS name, keys.prefix AS prefix, keys.scopes AS scopes, keys.expires_at AS expires_at, keys.last_used_at AS last_used_at, keys.created_at AS created_at, keys.id AS sort_key
FROM keys
WHERE keys.user_id = $1::BIGINT AND keys.id > $2::BIGINT ORDER BY keys.id ASC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- keys.page_own?user_id
-- $1 user_id, $2 owner, $3 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT keys.id, keys.id AS sort_key, keys.user_id = $1::BIGINT AS hit
  FROM keys
  WHERE keys.user_id = $2::BIGINT ORDER BY keys.id ASC LIMIT 500) AS walked) AS numbered
  WHERE hit OR n = 500 LIMIT ($3::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($3::BIGINT) AND max(n) = 500 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($3::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 16) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows * ahead / seen AS remaining, found * 500 > 4 * seen * (hits + 1) AS elsewhere, ($3::BIGINT) / greatest(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS expected, ($3::BIGINT) / least(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 5, rows * 1) * (1 - 1) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.7500::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE ahead) + 1 AS ahead, count(*) FILTER (WHERE hit AND ahead) AS found, least(CASE WHEN true THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('keys') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('keys') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT keys.user_id = $1::BIGINT AS hit, keys.user_id = $2::BIGINT AS ahead, keys.user_id = $1::BIGINT AS d0 FROM keys
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 500) AS rows FROM pg_class WHERE oid = 'keys'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT keys.id, keys.id AS sort_key, keys.user_id = $1::BIGINT AS hit
  FROM keys
  WHERE keys.user_id = $2::BIGINT AND (SELECT budget > 0 FROM sample) ORDER BY keys.id ASC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $3::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $3::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT keys.id, keys.id AS sort_key FROM keys
  WHERE keys.user_id = $2::BIGINT AND keys.user_id = $1::BIGINT AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key ASC, id ASC LIMIT 101) AS most LIMIT $3::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.user_id, shown.name, shown.prefix, shown.scopes, shown.expires_at, shown.last_used_at, shown.created_at, page.sort_key, counted.total
FROM (SELECT CASE WHEN (SELECT needed FROM gather) THEN (SELECT count(*) FROM every) ELSE (SELECT count(*) FROM keys
  WHERE keys.user_id = $2::BIGINT AND keys.user_id = $1::BIGINT) END AS total) AS counted LEFT JOIN (page CROSS JOIN LATERAL (SELECT keys.id, keys.user_id, keys.name, keys.prefix, keys.scopes, keys.expires_at, keys.last_used_at, keys.created_at FROM keys WHERE keys.id = page.id OFFSET 0) AS shown) ON true
ORDER BY page.sort_key ASC, page.id ASC;

-- notifications.user_exists
-- $1 id
SELECT users.id
FROM users
WHERE users.id = $1::BIGINT;

-- notifications.add
-- $1 user_id, $2 kind, $3 message, $4 data, $5 source
INSERT INTO notifications (user_id, kind, message, data, source) VALUES ($1::BIGINT, $2::VARCHAR, $3::VARCHAR, $4::JSONB, $5::VARCHAR) ON CONFLICT (source) DO NOTHING RETURNING notifications.id, notifications.user_id, notifications.kind, notifications.message, notifications.data, notifications.unread, notifications.read_at, notifications.created_at;

-- notifications.mark_read
-- $1 id, $2 user_id
WITH marked AS
(UPDATE notifications SET unread=false, read_at=now() WHERE notifications.id = $1::BIGINT AND notifications.user_id = $2::BIGINT AND notifications.unread RETURNING notifications.id)
 SELECT notifications.id, notifications.user_id, notifications.unread
FROM notifications
WHERE notifications.id = $1::BIGINT AND notifications.user_id = $2::BIGINT;

-- notifications.mark_all_read
-- $1 user_id, $2 up_to
WITH chosen AS
(SELECT notifications.id AS id
FROM notifications
WHERE notifications.user_id = $1::BIGINT AND notifications.unread AND notifications.id <= $2::BIGINT ORDER BY notifications.id
 LIMIT 1000 FOR UPDATE)
 UPDATE notifications SET unread=false, read_at=now() FROM chosen WHERE notifications.id = chosen.id RETURNING notifications.id, notifications.user_id, notifications.unread;

-- notifications.posted
-- $1 id
SELECT notifications.id, notifications.user_id, notifications.kind, notifications.message, notifications.data, notifications.created_at
FROM notifications
WHERE notifications.id = $1::BIGINT;

-- notifications.page
-- $1 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM notifications) AS matching) AS counted LEFT OUTER JOIN (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications ORDER BY notifications.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- notifications.start
-- $1 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications ORDER BY notifications.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- notifications.after
-- $1 last_id, $2 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications
WHERE notifications.id > $1::BIGINT ORDER BY notifications.id ASC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- notifications.page?sort=-id
-- $1 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM notifications) AS matching) AS counted LEFT OUTER JOIN (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications ORDER BY notifications.id DESC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- notifications.start?sort=-id
-- $1 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications ORDER BY notifications.id DESC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- notifications.after?sort=-id
-- $1 last_id, $2 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications
WHERE notifications.id < $1::BIGINT ORDER BY notifications.id DESC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- notifications.page?sort=created_at
-- $1 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM notifications) AS matching) AS counted LEFT OUTER JOIN (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.created_at AS sort_key
FROM notifications ORDER BY notifications.created_at ASC, notifications.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- notifications.start?sort=created_at
-- $1 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.created_at AS sort_key
FROM notifications ORDER BY notifications.created_at ASC, notifications.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- notifications.after?sort=created_at
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.created_at AS sort_key
FROM notifications
WHERE (notifications.created_at, notifications.id) > ($1::TIMESTAMP WITH TIME ZONE, $2::BIGINT) ORDER BY notifications.created_at ASC, notifications.id ASC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- notifications.page?sort=-created_at
-- $1 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM notifications) AS matching) AS counted LEFT OUTER JOIN (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.created_at AS sort_key
FROM notifications ORDER BY notifications.created_at DESC, notifications.id DESC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- notifications.start?sort=-created_at
-- $1 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.created_at AS sort_key
FROM notifications ORDER BY notifications.created_at DESC, notifications.id DESC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- notifications.after?sort=-created_at
-- $1 last_key, $2 last_id, $3 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.created_at AS sort_key
FROM notifications
WHERE (notifications.created_at, notifications.id) < ($1::TIMESTAMP WITH TIME ZONE, $2::BIGINT) ORDER BY notifications.created_at DESC, notifications.id DESC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- notifications.page?user_id
-- $1 user_id, $2 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM notifications
WHERE notifications.user_id = $1::BIGINT) AS matching) AS counted LEFT OUTER JOIN (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications
WHERE notifications.user_id = $1::BIGINT ORDER BY notifications.id ASC
 LIMIT 101) AS page ON true
 LIMIT $2::BIGINT;

-- notifications.page?unread=true
-- $1 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM notifications
WHERE notifications.unread) AS matching) AS counted LEFT OUTER JOIN (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications
WHERE notifications.unread ORDER BY notifications.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- notifications.page?unread=false
-- $1 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM notifications
WHERE NOT notifications.unread) AS matching) AS counted LEFT OUTER JOIN (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications
WHERE NOT notifications.unread ORDER BY notifications.id ASC
 LIMIT 101) AS page ON true
 LIMIT $1::BIGINT;

-- notifications.page?user_id&total=estimated
-- $1 user_id, $2 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM notifications
WHERE notifications.user_id = $1::BIGINT
 LIMIT 10000) AS matching) AS counted LEFT OUTER JOIN (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications
WHERE notifications.user_id = $1::BIGINT ORDER BY notifications.id ASC
 LIMIT 101) AS page ON true
 LIMIT $2::BIGINT;

-- notifications.page?user_id&total=none
-- $1 user_id, $2 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications
WHERE notifications.user_id = $1::BIGINT ORDER BY notifications.id ASC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- notifications.after?sort=-created_at&user_id
-- $1 user_id, $2 last_key, $3 last_id, $4 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT notifications.id, notifications.created_at AS sort_key, notifications.user_id = $1::BIGINT AS hit
  FROM notifications
  WHERE (notifications.created_at, notifications.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) ORDER BY notifications.created_at DESC, notifications.id DESC LIMIT 200) AS walked) AS numbered
  WHERE hit OR n = 200 LIMIT ($4::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($4::BIGINT) AND max(n) = 200 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($4::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 64) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows * ahead / seen AS remaining, found * 200 > 4 * seen * (hits + 1) AS elsewhere, ($4::BIGINT) / greatest(nullif(hits, 0) / 200::float8, nullif(found, 0) / seen::float8) AS expected, ($4::BIGINT) / least(nullif(hits, 0) / 200::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 5, rows * 1) * (1 - 0) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.1071::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE ahead) + 1 AS ahead, count(*) FILTER (WHERE hit AND ahead) AS found, least(CASE WHEN true THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('notifications') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('notifications') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT notifications.user_id = $1::BIGINT AS hit, (notifications.created_at, notifications.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) AS ahead, notifications.user_id = $1::BIGINT AS d0 FROM notifications
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 200) AS rows FROM pg_class WHERE oid = 'notifications'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT notifications.id, notifications.created_at AS sort_key, notifications.user_id = $1::BIGINT AS hit
  FROM notifications
  WHERE (notifications.created_at, notifications.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) AND (SELECT budget > 0 FROM sample) ORDER BY notifications.created_at DESC, notifications.id DESC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $4::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $4::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT notifications.id, notifications.created_at AS sort_key FROM notifications
  WHERE notifications.user_id = $1::BIGINT AND (notifications.created_at, notifications.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::BIGINT) AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key DESC, id DESC LIMIT 101) AS most LIMIT $4::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.user_id, shown.kind, shown.message, shown.data, shown.unread, shown.read_at, shown.created_at, page.sort_key
FROM page CROSS JOIN LATERAL (SELECT notifications.id, notifications.user_id, notifications.kind, notifications.message, notifications.data, notifications.unread, notifications.read_at, notifications.created_at FROM notifications WHERE notifications.id = page.id OFFSET 0) AS shown
ORDER BY page.sort_key DESC, page.id DESC;

-- notifications.page?total=none
-- $1 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications ORDER BY notifications.id ASC
 LIMIT 101) AS page
 LIMIT $1::BIGINT;

-- notifications.page?page
-- $1 limit, $2 offset
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM notifications) AS matching) AS counted LEFT OUTER JOIN (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications ORDER BY notifications.id ASC
 LIMIT $1::BIGINT OFFSET $2::BIGINT) AS page ON true;

-- notifications.page_own
-- $1 owner, $2 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key, counted.total
FROM (SELECT count(*) AS total
FROM (SELECT 1
FROM notifications
WHERE notifications.user_id = $1::BIGINT) AS matching) AS counted LEFT OUTER JOIN (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications
WHERE notifications.user_id = $1::BIGINT ORDER BY notifications.id ASC
 LIMIT 101) AS page ON true
 LIMIT $2::BIGINT;

-- notifications.page_own?sort=created_at
-- $1 owner, $2 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT notifications.id, notifications.created_at AS sort_key, notifications.user_id = $1::BIGINT AS hit
  FROM notifications ORDER BY notifications.created_at ASC, notifications.id ASC LIMIT 200) AS walked) AS numbered
  WHERE hit OR n = 200 LIMIT ($2::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($2::BIGINT) AND max(n) = 200 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($2::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 64) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows AS remaining, found * 200 > 4 * seen * (hits + 1) AS elsewhere, ($2::BIGINT) / greatest(nullif(hits, 0) / 200::float8, nullif(found, 0) / seen::float8) AS expected, ($2::BIGINT) / least(nullif(hits, 0) / 200::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 5, rows * 1) * (1 - 1) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.1071::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE hit) AS found, least(CASE WHEN true THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('notifications') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('notifications') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT notifications.user_id = $1::BIGINT AS hit, notifications.user_id = $1::BIGINT AS d0 FROM notifications
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 200) AS rows FROM pg_class WHERE oid = 'notifications'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT notifications.id, notifications.created_at AS sort_key, notifications.user_id = $1::BIGINT AS hit
  FROM notifications
  WHERE (SELECT budget > 0 FROM sample) ORDER BY notifications.created_at ASC, notifications.id ASC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $2::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $2::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT notifications.id, notifications.created_at AS sort_key FROM notifications
  WHERE notifications.user_id = $1::BIGINT AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key ASC, id ASC LIMIT 101) AS most LIMIT $2::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.user_id, shown.kind, shown.message, shown.data, shown.unread, shown.read_at, shown.created_at, page.sort_key, counted.total
FROM (SELECT CASE WHEN (SELECT needed FROM gather) THEN (SELECT count(*) FROM every) ELSE (SELECT count(*) FROM notifications
  WHERE notifications.user_id = $1::BIGINT) END AS total) AS counted LEFT JOIN (page CROSS JOIN LATERAL (SELECT notifications.id, notifications.user_id, notifications.kind, notifications.message, notifications.data, notifications.unread, notifications.read_at, notifications.created_at FROM notifications WHERE notifications.id = page.id OFFSET 0) AS shown) ON true
ORDER BY page.sort_key ASC, page.id ASC;

-- notifications.start_own
-- $1 owner, $2 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications
WHERE notifications.user_id = $1::BIGINT ORDER BY notifications.id ASC
 LIMIT 101) AS page
 LIMIT $2::BIGINT;

-- notifications.after_own
-- $1 owner, $2 last_id, $3 limit
SELECT page.id, page.user_id, page.kind, page.message, page.data, page.unread, page.read_at, page.created_at, page.sort_key
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at, notifications.id AS sort_key
FROM notifications
WHERE notifications.user_id = $1::BIGINT AND notifications.id > $2::BIGINT ORDER BY notifications.id ASC
 LIMIT 101) AS page
 LIMIT $3::BIGINT;

-- notifications.page_own?user_id
-- $1 user_id, $2 owner, $3 limit
WITH near AS MATERIALIZED (
  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n FROM (SELECT notifications.id, notifications.id AS sort_key, notifications.user_id = $1::BIGINT AS hit
  FROM notifications
  WHERE notifications.user_id = $2::BIGINT ORDER BY notifications.id ASC LIMIT 500) AS walked) AS numbered
  WHERE hit OR n = 500 LIMIT ($3::BIGINT)),
reached AS MATERIALIZED (SELECT count(*) FILTER (WHERE hit) AS hits, count(*) FILTER (WHERE hit) < ($3::BIGINT) AND max(n) = 500 AS short FROM near),
sample AS MATERIALIZED (
  SELECT short, remaining, CASE WHEN NOT short THEN 0 WHEN budget >= remaining * 0.735 THEN remaining WHEN expected < 2 * budget AND budget >= ($3::BIGINT) THEN CASE WHEN elsewhere THEN budget ELSE least(budget, longest * 2 + rows / 16) END ELSE 0 END AS budget
  FROM (SELECT short, rows, rows * ahead / seen AS remaining, found * 500 > 4 * seen * (hits + 1) AS elsewhere, ($3::BIGINT) / greatest(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS expected, ($3::BIGINT) / least(nullif(hits, 0) / 500::float8, nullif(found, 0) / seen::float8) AS longest,
    (least(rows / seen * (fewest + greatest(least(hits, 2) - fewest, 0)) * 5, rows * 1) * (1 - 1) + rows / seen * greatest(found, least(hits, 2)) * 6) * 0.7500::float8 AS budget
  FROM (SELECT count(*) + 1 AS seen, count(*) FILTER (WHERE ahead) + 1 AS ahead, count(*) FILTER (WHERE hit AND ahead) AS found, least(CASE WHEN true THEN count(*) FILTER (WHERE d0) END) AS fewest
    FROM generate_series(0, pg_relation_size('notifications') / current_setting('block_size')::bigint - 1, greatest(pg_relation_size('notifications') / current_setting('block_size')::bigint / 128, 1)) AS page, LATERAL (SELECT notifications.user_id = $1::BIGINT AS hit, notifications.user_id = $2::BIGINT AS ahead, notifications.user_id = $1::BIGINT AS d0 FROM notifications
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid LIMIT 2) AS one WHERE (SELECT short FROM reached)) AS counts, reached, (SELECT greatest(reltuples, 500) AS rows FROM pg_class WHERE oid = 'notifications'::regclass) AS size OFFSET 0) AS numbers),
far AS MATERIALIZED (
  SELECT * FROM (SELECT id, sort_key FROM (SELECT notifications.id, notifications.id AS sort_key, notifications.user_id = $1::BIGINT AS hit
  FROM notifications
  WHERE notifications.user_id = $2::BIGINT AND (SELECT budget > 0 FROM sample) ORDER BY notifications.id ASC LIMIT (SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)) AS walked
  WHERE hit LIMIT 101) AS most LIMIT $3::BIGINT),
gather AS MATERIALIZED (SELECT short AND budget < remaining AND (SELECT count(*) FROM far) < $3::BIGINT AS needed FROM sample),
every AS MATERIALIZED (
  SELECT notifications.id, notifications.id AS sort_key FROM notifications
  WHERE notifications.user_id = $2::BIGINT AND notifications.user_id = $1::BIGINT AND (SELECT needed FROM gather)),
page AS MATERIALIZED ((
  SELECT * FROM (SELECT id, sort_key FROM (SELECT id, sort_key FROM near WHERE hit AND NOT (SELECT short FROM reached) UNION ALL SELECT * FROM every) AS found
  ORDER BY sort_key ASC, id ASC LIMIT 101) AS most LIMIT $3::BIGINT) UNION ALL SELECT * FROM far WHERE NOT (SELECT needed FROM gather))
SELECT shown.id, shown.user_id, shown.kind, shown.message, shown.data, shown.unread, shown.read_at, shown.created_at, page.sort_key, counted.total
FROM (SELECT CASE WHEN (SELECT needed FROM gather) THEN (SELECT count(*) FROM every) ELSE (SELECT count(*) FROM notifications
  WHERE notifications.user_id = $2::BIGINT AND notifications.user_id = $1::BIGINT) END AS total) AS counted LEFT JOIN (page CROSS JOIN LATERAL (SELECT notifications.id, notifications.user_id, notifications.kind, notifications.message, notifications.data, notifications.unread, notifications.read_at, notifications.created_at FROM notifications WHERE notifications.id = page.id OFFSET 0) AS shown) ON true
ORDER BY page.sort_key ASC, page.id ASC;

-- dashboard.find
-- $1 id
SELECT users.id, users.email, users.username, users.full_name, users.role, users.is_active, users.version, users.created_at, users.updated_at, (SELECT row(figures.items, figures.active_items, figures.total_price, figures.unread_notifications) AS row_1
FROM (SELECT count(*) AS items, count(*) FILTER (WHERE items.is_active) AS active_items, trim_scale(coalesce(sum(items.price) FILTER (WHERE items.is_active), 0)) AS total_price, (SELECT count(*) AS count_1
FROM notifications
WHERE notifications.user_id = (SELECT $1::BIGINT AS anon_1) AND notifications.unread) AS unread_notifications
FROM items
WHERE items.owner_id = (SELECT $1::BIGINT AS anon_1)) AS figures) AS stats, array((SELECT row(anon_2.id, anon_2.sku, anon_2.name, anon_2.description, anon_2.price, anon_2.is_active, anon_2.owner_id, anon_2.version, anon_2.created_at, anon_2.updated_at) AS row_2
FROM (SELECT items.id AS id, items.sku AS sku, items.name AS name, items.description AS description, items.price AS price, items.is_active AS is_active, items.owner_id AS owner_id, items.version AS version, items.created_at AS created_at, items.updated_at AS updated_at
FROM items
WHERE items.owner_id = (SELECT $1::BIGINT AS anon_1) ORDER BY coalesce(items.updated_at, items.created_at) DESC, items.id DESC
 LIMIT 10) AS anon_2)) AS recent, array((SELECT row(anon_3.id, anon_3.user_id, anon_3.kind, anon_3.message, anon_3.data, anon_3.unread, anon_3.read_at, anon_3.created_at) AS row_3
FROM (SELECT notifications.id AS id, notifications.user_id AS user_id, notifications.kind AS kind, notifications.message AS message, notifications.data AS data, notifications.unread AS unread, notifications.read_at AS read_at, notifications.created_at AS created_at
FROM notifications
WHERE notifications.user_id = (SELECT $1::BIGINT AS anon_1) AND notifications.unread ORDER BY notifications.id DESC
 LIMIT 20) AS anon_3)) AS notifications
FROM users
WHERE users.id = (SELECT $1::BIGINT AS anon_1);

-- idempotency.find
-- $1 principals, $2 keys
SELECT idempotency_keys.principal, idempotency_keys.key, idempotency_keys.fingerprint, idempotency_keys.status, idempotency_keys.headers, idempotency_keys.body
FROM idempotency_keys, unnest($1::TEXT[], $2::TEXT[]) WITH ORDINALITY AS anon_1(principal, key, n)
WHERE idempotency_keys.principal = anon_1.principal AND idempotency_keys.key = anon_1.key AND idempotency_keys.created_at > now() - interval '24 hours';

-- idempotency.keep
-- $1 principals, $2 keys, $3 fingerprints, $4 statuss, $5 headerss, $6 bodys
INSERT INTO idempotency_keys (principal, key, fingerprint, status, headers, body) SELECT anon_1.principal, anon_1.key, anon_1.fingerprint, anon_1.status, anon_1.headers, anon_1.body
FROM unnest($1::TEXT[], $2::TEXT[], $3::BYTEA[], $4::INTEGER[], $5::BYTEA[], $6::BYTEA[]) WITH ORDINALITY AS anon_1(principal, key, fingerprint, status, headers, body, n) ORDER BY anon_1.principal, anon_1.key ON CONFLICT (principal, key) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status, headers = excluded.headers, body = excluded.body, created_at = now() WHERE idempotency_keys.created_at <= now() - interval '24 hours' RETURNING idempotency_keys.principal, idempotency_keys.key;

-- idempotency.remove
-- $1 limit
WITH removed AS
(DELETE FROM idempotency_keys WHERE idempotency_keys.ctid = ANY (array((SELECT old.ctid
FROM idempotency_keys AS "old"
WHERE "old".created_at <= now() - interval '24 hours' ORDER BY "old".created_at
 LIMIT $1::BIGINT FOR UPDATE SKIP LOCKED))) RETURNING idempotency_keys.key)
 SELECT count(*) AS n
FROM removed;

-- jobs.enqueue
-- $1 kind, $2 user_id, $3 place, $4 delay, $5 arguments
INSERT INTO jobs (kind, argument, user_id, place, run_at) SELECT $1::VARCHAR AS anon_1, anon_2.argument, $2::BIGINT AS anon_3, $3::VARCHAR AS anon_4, now() + $4::FLOAT * interval '1 second' AS anon_5
FROM unnest($5::JSONB[]) WITH ORDINALITY AS anon_2(argument, n) ORDER BY anon_2.n RETURNING jobs.id, pg_notify('swiftlet-jobs', '') AS told;

-- jobs.claim
-- $1 places, $2 kinds, $3 frees, $4 lease
WITH wanted AS
(SELECT anon_1.kind AS kind, anon_1.free AS free, anon_1.n AS n
FROM unnest($2::TEXT[], $3::BIGINT[]) WITH ORDINALITY AS anon_1(kind, free, n)),
timer AS
(SELECT CAST(EXTRACT(epoch FROM min(least((SELECT jobs.run_at
FROM jobs
WHERE jobs.kind = wanted.kind AND (jobs.place IS NULL OR jobs.place = ANY ($1::TEXT[])) AND jobs.state = 'queued' AND jobs.run_at > now() ORDER BY jobs.run_at
 LIMIT 1), (SELECT jobs.leased_until
FROM jobs
WHERE jobs.kind = wanted.kind AND (jobs.place IS NULL OR jobs.place = ANY ($1::TEXT[])) AND jobs.state = 'running' AND jobs.leased_until > now() ORDER BY jobs.leased_until
 LIMIT 1))) - now()) AS FLOAT) AS seconds
FROM wanted),
claimed AS
(UPDATE jobs SET state='running', attempts=(jobs.attempts + 1), claims=(jobs.claims + 1), leased_until=(now() + $4::FLOAT * interval '1 second') WHERE jobs.id = ANY (array((SELECT picked.id
FROM wanted JOIN LATERAL (SELECT anon_2.id AS id
FROM (SELECT anon_3.id AS id
FROM (SELECT jobs.id AS id
FROM jobs
WHERE jobs.kind = wanted.kind AND (jobs.place IS NULL OR jobs.place = ANY ($1::TEXT[])) AND jobs.state = 'running' AND jobs.leased_until <= now() ORDER BY jobs.leased_until
 LIMIT wanted.free FOR UPDATE SKIP LOCKED) AS anon_3 UNION ALL SELECT anon_4.id AS id
FROM (SELECT jobs.id AS id
FROM jobs
WHERE jobs.kind = wanted.kind AND (jobs.place IS NULL OR jobs.place = ANY ($1::TEXT[])) AND jobs.state = 'queued' AND jobs.run_at <= now() ORDER BY jobs.run_at, jobs.id
 LIMIT wanted.free FOR UPDATE SKIP LOCKED) AS anon_4) AS anon_2
 LIMIT wanted.free) AS picked ON true))) RETURNING jobs.id, jobs.kind, jobs.argument, jobs.user_id, jobs.attempts, jobs.claims)
 SELECT timer.seconds, claimed.id, claimed.kind, claimed.argument, claimed.user_id, claimed.attempts, claimed.claims
FROM timer LEFT OUTER JOIN claimed ON true;

-- jobs.renew
-- $1 lease, $2 ids, $3 claims
UPDATE jobs SET leased_until=(now() + $1::FLOAT * interval '1 second') FROM unnest($2::BIGINT[], $3::BIGINT[]) WITH ORDINALITY AS anon_1(id, claim, n) WHERE jobs.id = anon_1.id AND jobs.claims = anon_1.claim AND jobs.state = 'running' RETURNING jobs.id, jobs.claims;

-- jobs.progress
-- $1 done, $2 total, $3 id, $4 claim
UPDATE jobs SET done=$1::BIGINT, total=$2::BIGINT WHERE jobs.id = $3::BIGINT AND jobs.claims = $4::BIGINT AND jobs.state = 'running' RETURNING jobs.id;

-- jobs.finish
-- $1 done, $2 total, $3 result, $4 error, $5 id, $6 claim
UPDATE jobs SET state='done', leased_until=NULL, done=$1::BIGINT, total=$2::BIGINT, result=$3::JSON, error=$4::VARCHAR, finished_at=now() WHERE jobs.id = $5::BIGINT AND jobs.claims = $6::BIGINT AND (jobs.state = 'running' OR jobs.state = 'done') RETURNING jobs.id;

-- jobs.fail
-- $1 done, $2 total, $3 result, $4 error, $5 id, $6 claim
UPDATE jobs SET state='failed', leased_until=NULL, done=$1::BIGINT, total=$2::BIGINT, result=$3::JSON, error=$4::VARCHAR, finished_at=now() WHERE jobs.id = $5::BIGINT AND jobs.claims = $6::BIGINT AND jobs.state = 'running' RETURNING jobs.id;

-- jobs.release
-- $1 delay, $2 attempts, $3 done, $4 total, $5 error, $6 id, $7 claim
UPDATE jobs SET state='queued', run_at=(now() + $1::FLOAT * interval '1 second'), attempts=$2::INTEGER, leased_until=NULL, done=$3::BIGINT, total=$4::BIGINT, error=$5::VARCHAR WHERE jobs.id = $6::BIGINT AND jobs.claims = $7::BIGINT AND jobs.state = 'running' RETURNING jobs.id, pg_notify('swiftlet-jobs', '') AS told;

-- jobs.by_id
-- $1 id
SELECT jobs.id, jobs.kind, jobs.state, jobs.user_id, jobs.done, jobs.total, jobs.attempts, jobs.result, jobs.error, jobs.run_at, jobs.created_at, jobs.finished_at
FROM jobs
WHERE jobs.id = $1::BIGINT;

-- jobs.list
-- $1 state, $2 kind, $3 before, $4 limit
SELECT jobs.id, jobs.kind, jobs.state, jobs.user_id, jobs.done, jobs.total, jobs.attempts, jobs.result, jobs.error, jobs.run_at, jobs.created_at, jobs.finished_at
FROM jobs
WHERE ($1::VARCHAR IS NULL OR jobs.state = $1::VARCHAR) AND ($1::VARCHAR IS NULL OR $1::VARCHAR != 'failed' OR jobs.finished_at IS NOT NULL) AND ($2::VARCHAR IS NULL OR jobs.kind = $2::VARCHAR) AND ($3::BIGINT IS NULL OR jobs.id < $3::BIGINT) ORDER BY jobs.id DESC
 LIMIT $4::BIGINT;

-- jobs.retry
-- $1 ids
UPDATE jobs SET state='queued', run_at=now(), attempts=0, result=NULL, error=NULL, finished_at=NULL WHERE jobs.state = 'failed' AND jobs.id = ANY ($1::BIGINT[]) RETURNING jobs.id, pg_notify('swiftlet-jobs', '') AS told;

-- jobs.trim
-- $1 state, $2 kept, $3 limit
WITH removed AS
(DELETE FROM jobs WHERE jobs.id = ANY (array((SELECT jobs.id
FROM jobs
WHERE jobs.state = $1::VARCHAR AND jobs.finished_at <= now() - $2::FLOAT * interval '1 second' ORDER BY jobs.finished_at
 LIMIT $3::BIGINT FOR UPDATE SKIP LOCKED))) RETURNING jobs.id)
 SELECT count(*) AS n
FROM removed;

-- jobs.figures
-- $1 kinds
WITH failed AS
(SELECT jobs.kind AS kind
FROM jobs
WHERE jobs.state = 'failed' AND jobs.finished_at IS NOT NULL
 LIMIT 10000),
wanted AS
(SELECT anon_2.kind AS kind, anon_2.n AS n
FROM unnest($1::TEXT[]) WITH ORDINALITY AS anon_2(kind, n))
 SELECT wanted.kind, (SELECT count(*) AS count_1
FROM (SELECT jobs.id AS id
FROM jobs
WHERE jobs.kind = wanted.kind AND jobs.state = 'queued'
 LIMIT 10000) AS anon_1) AS queued, (SELECT count(*) AS count_2
FROM failed
WHERE failed.kind = wanted.kind) AS failed, greatest(CAST(EXTRACT(epoch FROM now() - (SELECT jobs.run_at
FROM jobs
WHERE jobs.kind = wanted.kind AND jobs.state = 'queued' ORDER BY jobs.run_at
 LIMIT 1)) AS FLOAT), 0) AS waited
FROM wanted;

-- jobs.spooled
-- $1 place
SELECT jsonb_extract_path_text(jobs.argument, 'file') AS file, jobs.state
FROM jobs
WHERE jobs.place = $1::VARCHAR;

-- changes.settled
-- no arguments
SELECT settled_changes() AS position;

-- changes.read
-- $1 after, $2 until, $3 limit, $4 bytes
SELECT found.position, found.name, found.kind, found.rows
FROM (SELECT place.position * 1024 AS position, change_log.name AS name, change_log.kind AS kind, change_log.rows AS rows, sum(octet_length(change_log.rows)) OVER (ORDER BY place.position ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) - octet_length(change_log.rows) AS before
FROM (SELECT change_positions.position AS position, change_positions.entry AS entry
FROM change_positions
WHERE change_positions.position >= $1::BIGINT / 1024 AND change_positions.position <= $2::BIGINT ORDER BY change_positions.position
 LIMIT $3::BIGINT + 1) AS place JOIN change_log ON change_log.id = place.entry
WHERE (place.position * 1024 + change_log.number) - 1 > $1::BIGINT) AS found
WHERE found.before < $4::BIGINT ORDER BY found.position
 LIMIT $3::BIGINT;

-- changes.newest
-- $1 until
SELECT greatest((SELECT max(change_positions.position) AS max_1
FROM change_positions
WHERE change_positions.position <= $1::BIGINT), (SELECT max(change_horizon.position) / 1024 AS anon_1
FROM change_horizon), 0) * 1024 + 1023 AS position;

-- changes.horizon
-- no arguments
SELECT coalesce(max(change_horizon.position), -1) AS position
FROM change_horizon;

-- changes.trim
-- $1 after, $2 limit, $3 kept
WITH places AS
(DELETE FROM change_positions WHERE change_positions.position IN (SELECT first.position
FROM (SELECT change_positions.position AS position, change_positions.committed_at AS committed_at
FROM change_positions
WHERE change_positions.position > $1::BIGINT / 1024 ORDER BY change_positions.position
 LIMIT $2::BIGINT) AS first
WHERE first.committed_at < now() - $3::INTERVAL AND (SELECT pg_try_advisory_xact_lock(CAST(CAST('change_log'::regclass AS OID) AS INTEGER), 1) AS pg_try_advisory_xact_lock_1)) RETURNING change_positions.position, change_positions.entry),
entries AS
(DELETE FROM change_log USING places WHERE change_log.id = places.entry RETURNING places.position, change_log.number),
moved AS
(INSERT INTO change_horizon (position) SELECT (entries.position * 1024 + entries.number) - 1 AS position
FROM entries ORDER BY entries.position DESC
 LIMIT 1 ON CONFLICT (id) DO UPDATE SET position = greatest(change_horizon.position, excluded.position) RETURNING change_horizon.position)
 SELECT count(*) AS n
FROM places;

-- webhooks.by_id
-- $1 id
SELECT webhooks.id, webhooks.url, webhooks.resource, webhooks.position
FROM webhooks
WHERE webhooks.id = $1::BIGINT;

-- webhooks.add
-- $1 url, $2 resource, $3 position
INSERT INTO webhooks (url, resource, position) VALUES ($1::VARCHAR, $2::VARCHAR, $3::BIGINT) RETURNING webhooks.id;

-- webhooks.remove
-- $1 id
DELETE FROM webhooks WHERE webhooks.id = $1::BIGINT RETURNING webhooks.id;

-- webhooks.save
-- $1 position, $2 error, $3 id, $4 job_id, $5 claim
UPDATE webhooks SET position=greatest(webhooks.position, $1::BIGINT), error=$2::VARCHAR WHERE webhooks.id = $3::BIGINT AND (EXISTS (SELECT jobs.id
FROM jobs
WHERE jobs.id = $4::BIGINT AND jobs.claims = $5::BIGINT AND jobs.state = 'running')) RETURNING webhooks.id;

-- webhooks.check
-- $1 id, $2 job_id, $3 claim
SELECT webhooks.id
FROM webhooks
WHERE webhooks.id = $1::BIGINT AND (EXISTS (SELECT jobs.id
FROM jobs
WHERE jobs.id = $2::BIGINT AND jobs.claims = $3::BIGINT AND jobs.state = 'running'));

-- webhooks.give_up
-- $1 webhook_id, $2 position, $3 body, $4 lost_to, $5 attempts, $6 error
INSERT INTO webhook_failures (webhook_id, position, body, lost_to, attempts, error) VALUES ($1::BIGINT, $2::BIGINT, $3::VARCHAR, $4::BIGINT, $5::INTEGER, $6::VARCHAR) ON CONFLICT (webhook_id, position) DO NOTHING RETURNING webhook_failures.id;

-- webhooks.list
-- no arguments
SELECT webhooks.id, webhooks.url, webhooks.resource, webhooks.position, webhooks.error, (SELECT count(webhook_failures.id) AS count_1
FROM webhook_failures
WHERE webhook_failures.webhook_id = webhooks.id) AS failures
FROM webhooks ORDER BY webhooks.id;

-- webhooks.behind
-- $1 position, $2 table
SELECT count(*) AS entries, CAST(coalesce(sum(anon_1.changes), 0) AS BIGINT) AS changes, CAST(EXTRACT(epoch FROM clock_timestamp() - min(anon_1.committed_at)) AS DOUBLE PRECISION) AS seconds
FROM (SELECT json_array_length(CAST(change_log.rows AS JSON)) - greatest(($1::BIGINT - change_positions.position * 1024) + 1, 0) AS changes, change_positions.committed_at AS committed_at
FROM change_positions JOIN change_log ON change_log.id = change_positions.entry
WHERE change_positions.position >= $1::BIGINT / 1024 AND change_log.name = $2::VARCHAR AND json_array_length(CAST(change_log.rows AS JSON)) - greatest(($1::BIGINT - change_positions.position * 1024) + 1, 0) > 0 ORDER BY change_positions.position
 LIMIT 500) AS anon_1;

-- webhooks.figures
-- no arguments
SELECT CAST(coalesce(EXTRACT(epoch FROM clock_timestamp() - min((SELECT change_positions.committed_at
FROM change_positions
WHERE change_positions.position > webhooks.position / 1024 ORDER BY change_positions.position
 LIMIT 1))), 0) AS DOUBLE PRECISION) AS lag, (SELECT count(anon_1.id) AS count_1
FROM (SELECT webhook_failures.id AS id
FROM webhook_failures
 LIMIT 10000) AS anon_1) AS failures
FROM webhooks;

-- webhooks.retry
-- $1 after, $2 id, $3 webhook_id, $4 limit
SELECT webhook_failures.id, webhook_failures.webhook_id, webhooks.url, webhook_failures.position, webhook_failures.body
FROM webhook_failures JOIN webhooks ON webhooks.id = webhook_failures.webhook_id
WHERE webhook_failures.id > $1::BIGINT AND ($2::BIGINT IS NULL OR webhook_failures.id = $2::BIGINT) AND ($3::BIGINT IS NULL OR webhook_failures.webhook_id = $3::BIGINT) AND webhook_failures.body IS NOT NULL ORDER BY webhook_failures.id
 LIMIT $4::BIGINT;

-- webhooks.failed
-- $1 webhook_id, $2 limit
SELECT webhook_failures.id, webhook_failures.webhook_id, webhook_failures.position, webhook_failures.body, webhook_failures.lost_to, webhook_failures.attempts, webhook_failures.error, webhook_failures.created_at
FROM webhook_failures
WHERE $1::BIGINT IS NULL OR webhook_failures.webhook_id = $1::BIGINT ORDER BY webhook_failures.id
 LIMIT $2::BIGINT;

-- webhooks.failed_again
-- $1 error, $2 id
UPDATE webhook_failures SET attempts=(webhook_failures.attempts + 1), error=$1::VARCHAR WHERE webhook_failures.id = $2::BIGINT RETURNING webhook_failures.id;

-- webhooks.forget
-- $1 id, $2 webhook_id
DELETE FROM webhook_failures WHERE ($1::BIGINT IS NULL OR webhook_failures.id = $1::BIGINT) AND ($2::BIGINT IS NULL OR webhook_failures.webhook_id = $2::BIGINT) RETURNING webhook_failures.id;

-- changes.lower
-- $1 letters
SELECT given.letter, lower(given.letter) AS lowered
FROM unnest($1::TEXT[]) AS given(letter);
