// Just enough of a Prisma schema: what a field holds, and where the database is.

const MODEL = /^\s*model\s+(\w+)\s*\{([^]*?)^\s*\}/gm;
const FIELD = /^\s*(\w+)\s+(\w+)/;
const DATASOURCE_URL = /url\s*=\s*(?:env\(\s*"([^"]+)"\s*\)|"([^"]+)")/;

/** Map of model name -> Map of field name -> type name ("Json", "String", or another model). */
export function readModels(schema) {
  const models = new Map();
  for (const [, name, body] of schema.matchAll(MODEL)) {
    const fields = new Map();
    for (const line of body.split('\n')) {
      const found = FIELD.exec(line); // comments and @@attributes do not match
      if (found !== null) fields.set(found[1], found[2]);
    }
    models.set(name, fields);
  }
  return models;
}

/** The database's URL: the client's override, else what the schema says, from the environment if it says so. */
export function datasourceUrl(schema, environment) {
  const overrides = environment.OVERWRITE_DATASOURCES;
  if (overrides) return JSON.parse(overrides)[0].url;
  const found = DATASOURCE_URL.exec(schema);
  if (found === null) throw new Error('the schema names no datasource url');
  const [, variable, literal] = found;
  const url = variable === undefined ? literal : environment[variable];
  if (!url) throw new Error(`environment variable ${variable} is not set`);
  return url;
}
