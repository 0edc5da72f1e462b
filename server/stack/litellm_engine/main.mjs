// Stand-in for Prisma's native `query-engine` executable.
//
// LiteLLM's database client (prisma-client-py) starts `query-engine -p PORT --enable-metrics --enable-raw-queries` with
// PRISMA_DML_PATH in the environment and talks GraphQL over HTTP to it. The native engine is distributed outside the
// package registries; this program keeps its contract and hands the work to Prisma's WebAssembly engine, which is not.
// It touches the database named in the environment and listens on loopback only.

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { openAdapter } from './database.mjs';
import { listen } from './http.mjs';
import { log } from './log.mjs';
import { datasourceUrl, readModels } from './schema.mjs';
import { WasmEngine } from './wasm-engine.mjs';

// The commit that prisma-client-py 0.11 (Prisma 5.4.2) expects `--version` to print.
const REPORTED_VERSION = 'ac9d7041ed77bcc8a8dbd2ab6616b39013829574';
const PARENT = process.ppid;
const PARENT_CHECK_MS = 250;

// Without its client no response is needed, and the database closes the connections by itself: exit at once.
function leaveWithParent() {
  setInterval(() => {
    if (process.ppid === PARENT) return;
    log('info', 'stopping: the client process is gone');
    process.exit(0);
  }, PARENT_CHECK_MS).unref();
}

async function serve(port) {
  process.title = 'query-engine'; // the client looks for this name
  const schema = readFileSync(process.env.PRISMA_DML_PATH, 'utf8');
  const adapter = await openAdapter(datasourceUrl(schema, process.env));
  const engine = new WasmEngine({ schema, adapter, onLog: (line) => log('engine', line) });
  await engine.connect();
  const server = await listen({ engine, models: readModels(schema), port });

  let stopping = false;
  const stop = async () => {
    if (stopping) return;
    stopping = true;
    server.close();
    server.closeAllConnections();
    await engine.disconnect().catch((error) => log('error', String(error)));
    process.exit(0);
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  leaveWithParent();
}

const { values } = parseArgs({
  strict: false,
  options: { port: { type: 'string', short: 'p' }, version: { type: 'boolean' } },
});
if (values.version) {
  process.stdout.write(`query-engine ${REPORTED_VERSION}\n`);
} else {
  serve(Number(values.port)).catch((error) => {
    log('error', String(error.stack ?? error));
    process.exit(1);
  });
}
