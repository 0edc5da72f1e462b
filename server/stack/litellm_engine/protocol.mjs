// Translation between the two wire protocols of Prisma's query engine:
// GraphQL (what prisma-client-py speaks) and JSON (what the WebAssembly build speaks).

import { parseOperation } from './graphql.mjs';
import { tagArguments } from './json-arguments.mjs';

const RAW_ACTIONS = new Set(['queryRaw', 'executeRaw']);

// GraphQL field prefix -> JSON action; "OrThrow" is a suffix after the model name.
const MODEL_ACTIONS = [
  'findUnique', 'findFirst', 'findMany',
  'createOne', 'createManyAndReturn', 'createMany',
  'updateOne', 'updateMany', 'upsertOne',
  'deleteOne', 'deleteMany',
  'aggregate', 'groupBy',
];

function splitFieldName(field, models) {
  if (RAW_ACTIONS.has(field)) return { action: field };
  for (const action of MODEL_ACTIONS) {
    if (!field.startsWith(action)) continue;
    const rest = field.slice(action.length);
    if (models.has(rest)) return { action, modelName: rest };
    const base = rest.replace(/OrThrow$/, '');
    if (base !== rest && models.has(base)) return { action: `${action}OrThrow`, modelName: base };
  }
  throw new Error(`no model action is called ${field}`);
}

function selectionOf(fields, modelName, models) {
  const selection = {};
  for (const { name, arguments: args, selection: inner } of fields ?? []) {
    const related = models.get(modelName)?.get(name);
    const isRelation = models.has(related);
    selection[name] = inner === null && Object.keys(args).length === 0 ? true : {
      arguments: isRelation ? tagArguments(args, related, models) : args,
      selection: selectionOf(inner, isRelation ? related : modelName, models),
    };
  }
  return selection;
}

/** GraphQL text -> { alias, action, request } where request is a JSON-protocol query. */
export function toJsonQuery(text, models) {
  const root = parseOperation(text);
  const { action, modelName } = splitFieldName(root.name, models);
  const request = {
    action,
    query: {
      arguments: modelName === undefined ? root.arguments : tagArguments(root.arguments, modelName, models),
      selection: selectionOf(root.selection, modelName, models),
    },
  };
  if (modelName !== undefined) request.modelName = modelName;
  return { alias: root.alias, action, request };
}

/** Undo the JSON protocol's {"$type", "value"} tagging, which GraphQL does not have. */
export function untag(value) {
  if (Array.isArray(value)) return value.map(untag);
  if (value === null || typeof value !== 'object') return value;
  if ('$type' in value) {
    if (value.$type === 'BigInt') {
      const number = Number(value.value);
      return Number.isSafeInteger(number) ? number : value.value;
    }
    return value.value; // DateTime, Decimal, Bytes, Json, Enum: all plain strings in GraphQL
  }
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, untag(inner)]));
}

const typed = (type, value) =>
  value === null ? { prisma__type: 'null', prisma__value: null } : { prisma__type: type, prisma__value: value };

/**
 * Raw query results as engines before 5.14 returned them, which prisma-client-py 0.11 reads:
 * [{ column: { prisma__type, prisma__value } }] instead of { columns, types, rows }.
 */
function asTypedRows({ columns, types, rows }) {
  const cell = (type, value) => {
    if (value === null || !type.endsWith('-array')) return typed(type, value);
    const itemType = type.slice(0, -'-array'.length);
    return typed('array', value.map((item) => typed(itemType, item)));
  };
  return rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, cell(types[i], row[i])])));
}

/** JSON-protocol response of one query -> GraphQL response under the caller's alias. */
export function toGraphqlResponse(response, { alias, action }) {
  if (response.errors !== undefined) return { errors: response.errors };
  const result = untag(Object.values(response.data)[0]);
  return { data: { [alias]: action === 'queryRaw' ? asTypedRows(result) : result } };
}

/** An error body in the engine's own shape. */
export function errorResponse(message, userFacing = {}) {
  return {
    errors: [{
      error: message,
      user_facing_error: { is_panic: false, message, meta: {}, error_code: '', ...userFacing },
    }],
  };
}
