import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toGraphqlResponse, toJsonQuery, untag } from '../../../../server/stack/litellm_engine/protocol.mjs';
import { readModels } from '../../../../server/stack/litellm_engine/schema.mjs';

const models = readModels(`
model Keys {
  token    String @id
  metadata Json   @default("{}")
  owner    Users? @relation(fields: [user_id], references: [user_id])
  user_id  String?
}

model Users {
  user_id  String @id
  metadata Json
  keys     Keys[]
}
`);
const json = (value) => ({ $type: 'Json', value });
const argumentsOf = (text) => toJsonQuery(text, models).request.query.arguments;

test('the operation becomes an action on a model', () => {
  const { alias, action, request } = toJsonQuery('query { result: findManyKeys(take: 1) { token } }', models);

  assert.equal(alias, 'result');
  assert.equal(action, 'findMany');
  assert.deepEqual(request, {
    modelName: 'Keys',
    action: 'findMany',
    query: { arguments: { take: 1 }, selection: { token: true } },
  });
});

test('OrThrow stands after the model in GraphQL and after the action in JSON', () => {
  assert.equal(toJsonQuery('{ findUniqueKeysOrThrow(where: {}) { token } }', models).action, 'findUniqueOrThrow');
});

test('an unknown operation is named in the error', () => {
  assert.throws(() => toJsonQuery('{ explodeKeys { token } }', models), /explodeKeys/);
});

test('raw queries belong to no model', () => {
  const { request } = toJsonQuery('mutation { result: queryRaw(query: "SELECT 1", parameters: "[]") }', models);

  assert.deepEqual(request, {
    action: 'queryRaw',
    query: { arguments: { query: 'SELECT 1', parameters: '[]' }, selection: {} },
  });
});

test('Json fields are tagged and other strings are not', () => {
  assert.deepEqual(argumentsOf('{ createOneKeys(data: { token: "{}", metadata: "{\\"a\\":1}" }) { token } }'), {
    data: { token: '{}', metadata: json('{"a":1}') },
  });
});

test('Json inside nested writes, lists and boolean filters is tagged', () => {
  assert.deepEqual(
    argumentsOf(`{ createOneUsers(data: {
      user_id: "u", metadata: "{}",
      keys: { create: [{ token: "t", metadata: "[]" }], connectOrCreate: { where: { token: "x" }, create: { token: "x", metadata: "1" } } }
    }) { user_id } }`).data.keys,
    {
      create: [{ token: 't', metadata: json('[]') }],
      connectOrCreate: { where: { token: 'x' }, create: { token: 'x', metadata: json('1') } },
    },
  );
  assert.deepEqual(argumentsOf('{ findManyKeys(where: { OR: [{ metadata: { equals: "{}" } }] }) { token } }'), {
    where: { OR: [{ metadata: { equals: json('{}') } }] },
  });
});

test('operands of Json filters that are text, and null markers, stay as they are', () => {
  assert.deepEqual(
    argumentsOf('{ findManyKeys(where: { metadata: { path: ["a"], string_contains: "q" } }) { token } }').where.metadata,
    { path: ['a'], string_contains: 'q' },
  );
  assert.deepEqual(argumentsOf('{ updateManyKeys(data: { metadata: JsonNull }) { count } }').data.metadata, 'JsonNull');
});

test('tagged values of an answer come back plain', () => {
  assert.deepEqual(
    untag([{ at: { $type: 'DateTime', value: '2030-01-01' }, big: { $type: 'BigInt', value: '9007199254740993' } },
      { small: { $type: 'BigInt', value: '7' }, data: { $type: 'Json', value: '{"$type":"x"}' }, none: null }]),
    [{ at: '2030-01-01', big: '9007199254740993' }, { small: 7, data: '{"$type":"x"}', none: null }],
  );
});

test('raw rows are typed as engines before 5.14 typed them', () => {
  const response = { data: { queryRaw: { columns: ['a', 'b', 'c'], types: ['int', 'string-array', 'string'], rows: [[1, ['x', null], null]] } } };

  assert.deepEqual(toGraphqlResponse(response, { alias: 'result', action: 'queryRaw' }), {
    data: {
      result: [{
        a: { prisma__type: 'int', prisma__value: 1 },
        b: {
          prisma__type: 'array',
          prisma__value: [
            { prisma__type: 'string', prisma__value: 'x' },
            { prisma__type: 'null', prisma__value: null },
          ],
        },
        c: { prisma__type: 'null', prisma__value: null },
      }],
    },
  });
});

test('errors of the engine are passed on', () => {
  const errors = [{ error: 'x', user_facing_error: { error_code: 'P2002' } }];

  assert.deepEqual(toGraphqlResponse({ errors }, { alias: 'result', action: 'findMany' }), { errors });
});
