import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectionSettings } from '../../../../server/stack/litellm_engine/connection-url.mjs';
import { datasourceUrl, readModels } from '../../../../server/stack/litellm_engine/schema.mjs';

test("Prisma's own parameters become pool settings and leave the URL", () => {
  const { schema, pool } = connectionSettings(
    'postgresql://ann:p%40ss@127.0.0.1:5432/db?connection_limit=7&pool_timeout=60&pgbouncer=true&sslmode=disable',
  );

  assert.equal(schema, 'public');
  assert.equal(pool.connectionString, 'postgresql://ann:p%40ss@127.0.0.1:5432/db?sslmode=disable');
  assert.equal(pool.max, 7);
  assert.equal(pool.connectionTimeoutMillis, 60_000);
});

test('the session is in UTC and in the named schema', () => {
  const { schema, pool } = connectionSettings('postgresql://h/db?schema=proxy');

  assert.equal(schema, 'proxy');
  assert.match(pool.options, /TimeZone=UTC/);
  assert.match(pool.options, /search_path=proxy/);
});

test('fields are read with their types, comments and block attributes left out', () => {
  const models = readModels('model A {\n  id Int @id\n  // note: x\n  data Json?\n  bs B[]\n\n  @@index([id])\n}\nmodel B {\n  id Int\n}');

  assert.deepEqual([...models.get('A')], [['id', 'Int'], ['data', 'Json'], ['bs', 'B']]);
  assert.deepEqual([...models.keys()], ['A', 'B']);
});

const SCHEMA = 'datasource client {\n  provider = "postgresql"\n  url = env("DATABASE_URL")\n}';

test('the database comes from the environment variable that the schema names', () => {
  assert.equal(datasourceUrl(SCHEMA, { DATABASE_URL: 'postgresql://a' }), 'postgresql://a');
  assert.throws(() => datasourceUrl(SCHEMA, {}), /DATABASE_URL is not set/);
});

test("the client's override wins", () => {
  const environment = { DATABASE_URL: 'postgresql://a', OVERWRITE_DATASOURCES: '[{"name": "client", "url": "postgresql://b"}]' };

  assert.equal(datasourceUrl(SCHEMA, environment), 'postgresql://b');
});

test('a literal URL is taken as it is, and none is an error', () => {
  assert.equal(datasourceUrl('datasource d { url = "postgresql://c" }', {}), 'postgresql://c');
  assert.throws(() => datasourceUrl('datasource d { }', {}), /names no datasource url/);
});
