// Reads a Prisma connection URL: node-postgres knows neither its parameters nor its units.

const PRISMA_ONLY = [
  'pgbouncer', 'socket_timeout', 'statement_cache_size', 'max_idle_connection_lifetime', 'max_connection_lifetime',
];

/** Split a Prisma connection URL into the schema's name and node-postgres pool settings. */
export function connectionSettings(prismaUrl) {
  const url = new URL(prismaUrl);
  const take = (name, otherwise) => {
    const value = url.searchParams.get(name) ?? otherwise;
    url.searchParams.delete(name);
    return value;
  };
  const schema = take('schema', 'public');
  const connections = Number(take('connection_limit', 10));
  const connectSeconds = Number(take('connect_timeout', 5));
  const poolSeconds = Number(take('pool_timeout', 10));
  PRISMA_ONLY.forEach((name) => take(name));
  return {
    schema,
    pool: {
      connectionString: url.toString(),
      max: connections,
      // node-postgres has one limit for waiting and connecting together.
      connectionTimeoutMillis: Math.max(connectSeconds, poolSeconds) * 1000,
      // The adapter reads timestamptz values as if the session were in UTC.
      options: `-c TimeZone=UTC -c search_path=${schema}`,
      application_name: 'litellm-engine',
    },
  };
}
