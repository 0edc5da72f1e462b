import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseOperation } from '../../../../server/stack/litellm_engine/graphql.mjs';

test('a query as prisma-client-py writes it is read whole', () => {
  const field = parseOperation(`
    query {
      result: findUniqueLiteLLM_UserTable(
        where: { user_id: "u\\"1" },
        take: 3
      ) {
        user_id
        keys(where: { blocked: false }) { token }
      }
    }`);

  assert.deepEqual(field, {
    alias: 'result',
    name: 'findUniqueLiteLLM_UserTable',
    arguments: { where: { user_id: 'u"1' }, take: 3 },
    selection: [
      { alias: 'user_id', name: 'user_id', arguments: {}, selection: null },
      {
        alias: 'keys',
        name: 'keys',
        arguments: { where: { blocked: false } },
        selection: [{ alias: 'token', name: 'token', arguments: {}, selection: null }],
      },
    ],
  });
});

for (const [text, value] of [
  ['1e-05', 0.00001],
  ['-2.5', -2.5],
  ['9007199254740993', { $type: 'BigInt', value: '9007199254740993' }],
  ['9007199254740993.0', 9007199254740992],
  ['null', null],
  ['true', true],
  ['desc', 'desc'],
  ['[]', []],
  ['[1, [2], "x"]', [1, [2], 'x']],
  ['"\\u00fc\\n"', 'ü\n'],
]) {
  test(`the value ${text} is read`, () => {
    assert.deepEqual(parseOperation(`{ f(a: ${text}) }`).arguments.a, value);
  });
}

for (const text of ['{ a b }', '{ f(a: ) }', '{ f(a 1) }', '{ f(a: "open) }', 'query', '']) {
  test(`${JSON.stringify(text)} is refused with the place where it went wrong`, () => {
    assert.throws(() => parseOperation(text), { name: 'SyntaxError', message: /at offset \d+/ });
  });
}
