// Draws /openapi.json. Text is only ever set as textContent, so nothing in the document can become markup.
const element = (tag, text = "", attributes = {}) =>
  Object.assign(document.createElement(tag), { textContent: text }, attributes);

const section = (title, ...children) => {
  const details = element("details");
  const summary = element("summary");
  summary.append(...title);
  const inside = element("div");
  inside.append(...children);
  details.append(summary, inside);
  return details;
};

const row = (cells, id = "") => {
  const line = element("tr", "", { id });
  line.append(...cells.map((cell) => element("td", String(cell))));
  return line;
};

const schemaName = (content) => Object.entries(content ?? {})
  .map(([media, { schema }]) => `${media}${schema?.$ref ? ": " + schema.$ref.split("/").pop() : ""}`).join(", ");

const operation = (path, method, description) => {
  const parts = [];
  if (description.description) parts.push(element("p", description.description));
  const lines = (description.parameters ?? []).map((p) => row([p.name, p.in, p.required ? "required" : "", p.description ?? ""]));
  if (description.requestBody) lines.push(row(["body", schemaName(description.requestBody.content), "", ""]));
  for (const [status, answer] of Object.entries(description.responses)) {
    lines.push(row([status, schemaName(answer.content), "", answer.description]));
  }
  const table = element("table");
  table.append(...lines);
  const title = [
    element("span", method.toUpperCase(), { className: "method" }),
    element("code", path),
    element("span", ` ${description.summary}`),
  ];
  return section(title, ...parts, table);
};

const draw = (api) => {
  const byTag = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, description] of Object.entries(methods)) {
      const tag = description.tags[0];
      byTag.set(tag, [...(byTag.get(tag) ?? []), operation(path, method, description)]);
    }
  }
  const operations = document.getElementById("operations");
  for (const [tag, drawn] of byTag) operations.append(element("h2", tag), ...drawn);
  document.getElementById("schemas").append(
    ...Object.entries(api.components.schemas).map(([name, schema]) =>
      section([element("code", name)], element("pre", JSON.stringify(schema, null, 2)))));
  document.getElementById("errors").append(
    ...Object.entries(api["x-error-codes"]).map(([code, rule]) =>
      row([code, rule.status, rule.retryable ? "yes" : "no", rule.meaning], code)));
  document.getElementById("closes").append(
    ...api["x-close-codes"].map((c) => row([c.code, c.reason, c.reconnect ? "yes" : "no", c.meaning])));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
};

fetch("/openapi.json").then((response) => response.json()).then(draw);
