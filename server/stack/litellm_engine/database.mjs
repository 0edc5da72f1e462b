// The PostgreSQL side: a pool whose results Prisma's driver adapter can read.

import pg from 'pg';
import { PrismaPg } from '@prisma/adapter-pg';
import { bindAdapter } from '@prisma/driver-adapter-utils';
import { connectionSettings } from './connection-url.mjs';

// The adapter raises an error on built-in types without a mapping. A caller can use only their
// text form, so columns of these types are passed to it as text or text[].
const TEXT = 25;
const TEXT_ARRAY = 1009;
const PRESENTED_AS = new Map([
  ...[
    18 /* "char" */, 19 /* name */, 22 /* int2vector */, 24 /* regproc */, 27 /* tid */, 28 /* xid */, 29 /* cid */,
    30 /* oidvector */, 194 /* pg_node_tree */, 600 /* point */, 705 /* unknown */, 829 /* macaddr */, 1033 /* aclitem */,
    1186 /* interval */, 2202 /* regprocedure */, 2205 /* regclass */, 2206 /* regtype */, 2249 /* record */,
    2278 /* void */, 3220 /* pg_lsn */, 3614 /* tsvector */, 3615 /* tsquery */, 4089 /* regnamespace */, 4096 /* regrole */,
    5069 /* xid8 */,
  ].map((oid) => [oid, TEXT]),
  ...[1003 /* name[] */, 1187 /* interval[] */, 2210 /* regclass[] */, 2211 /* regtype[] */].map((oid) => [oid, TEXT_ARRAY]),
]);
for (const [oid, shown] of PRESENTED_AS) {
  pg.types.setTypeParser(oid, shown === TEXT ? (text) => text : pg.types.getTypeParser(TEXT_ARRAY));
}

function relabelFields(result) {
  for (const field of result?.fields ?? []) {
    field.dataTypeID = PRESENTED_AS.get(field.dataTypeID) ?? field.dataTypeID;
  }
  return result;
}

class RelabellingClient extends pg.Client {
  query(...args) {
    const done = args.at(-1);
    if (typeof done === 'function') { // how pg.Pool calls
      return super.query(...args.slice(0, -1), (error, result) => done(error, relabelFields(result)));
    }
    const pending = super.query(...args);
    return typeof pending?.then === 'function' ? pending.then(relabelFields) : pending;
  }
}

/** Open the driver adapter that the engine calls for every statement. */
export async function openAdapter(prismaUrl) {
  const { pool, schema } = connectionSettings(prismaUrl);
  const factory = new PrismaPg(new pg.Pool({ ...pool, Client: RelabellingClient }), { schema, disposeExternalPool: true });
  return bindAdapter(await factory.connect());
}
