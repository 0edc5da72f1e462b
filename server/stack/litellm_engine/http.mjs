// The HTTP contract of Prisma's native engine as prisma-client-py uses it: queries, batches, transactions, status.

import { createServer } from 'node:http';
import { log } from './log.mjs';
import { errorResponse, toGraphqlResponse, toJsonQuery } from './protocol.mjs';

const IDLE_CONNECTION_MS = 120_000; // the client's pool reuses idle connections

class Service {
  constructor(engine, models) {
    this.engine = engine;
    this.models = models;
    this.queries = 0;
  }

  /** Give errors raised inside the driver (P2036, "external error") their real text. */
  #explain(response) {
    for (const error of response.errors ?? []) {
      const facing = error.user_facing_error;
      if (facing?.error_code !== 'P2036') continue;
      const cause = this.engine.takeDriverError(facing.meta?.id);
      if (cause === undefined) continue;
      facing.message = `${facing.message}: ${cause.message}`;
      error.error = String(cause.stack ?? cause.message);
    }
    return response;
  }

  async #single(body, transactionId) {
    this.queries += 1;
    const query = toJsonQuery(body.query, this.models);
    const response = this.#explain(await this.engine.query(query.request, transactionId));
    return toGraphqlResponse(response, query);
  }

  async #batch(body, transactionId) {
    this.queries += body.batch.length;
    const parsed = body.batch.map((item) => toJsonQuery(item.query, this.models));
    const batch = { batch: parsed.map(({ request }) => request) };
    if (body.transaction) batch.transaction = { isolationLevel: body.isolationLevel ?? null };
    const response = this.#explain(await this.engine.query(batch, transactionId));
    if (response.errors !== undefined) return response;
    return {
      batchResult: response.batchResult.map((item, index) =>
        toGraphqlResponse(this.#explain(item), parsed[index])),
    };
  }

  async answer(method, path, text, transactionId) {
    if (method === 'GET' && path === '/status') return { status: 'ok' };
    if (method === 'GET' && path === '/metrics') {
      return {
        counters: [{ key: 'prisma_client_queries_total', labels: {}, value: this.queries, description: 'Queries served' }],
        gauges: [],
        histograms: [],
      };
    }
    if (method !== 'POST') return undefined;
    if (path === '/') {
      const body = JSON.parse(text);
      return 'batch' in body ? this.#batch(body, transactionId) : this.#single(body, transactionId);
    }
    if (path === '/transaction/start') return transactionReply(await this.engine.startTransaction(JSON.parse(text)));
    const step = /^\/transaction\/([^/]+)\/(commit|rollback)$/.exec(path);
    if (step !== null) return transactionReply(await this.engine[step[2]](step[1]));
    return undefined;
  }
}

// Transaction endpoints report failures as a bare user-facing error object.
function transactionReply(reply) {
  return reply?.error_code === undefined ? reply : errorResponse(reply.message, reply);
}

async function readBody(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

/** Serve an engine on loopback; resolves to the listening server. */
export function listen({ engine, models, port }) {
  const service = new Service(engine, models);
  const server = createServer(async (request, response) => {
    let status = 200;
    let reply;
    try {
      const { pathname } = new URL(request.url, 'http://engine');
      const text = await readBody(request);
      reply = await service.answer(request.method, pathname, text, request.headers['x-transaction-id']);
      if (reply === undefined) [status, reply] = [404, errorResponse(`no such endpoint: ${request.method} ${pathname}`)];
    } catch (error) {
      log('error', String(error.stack ?? error));
      reply = errorResponse(String(error.message ?? error), { error_code: 'P2009' });
    }
    const bytes = Buffer.from(JSON.stringify(reply));
    response.writeHead(status, { 'content-type': 'application/json', 'content-length': bytes.length });
    response.end(bytes);
  });
  server.keepAliveTimeout = IDLE_CONNECTION_MS;
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}
