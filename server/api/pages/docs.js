// Shows /openapi.json and /asyncapi.json with Scalar, which may load from this origin only. The page's policy refuses
// styles in markup: style elements get the nonce that the policy names, style attributes are set as properties.
const { nonce } = document.currentScript;
const create = document.createElement.bind(document);
document.createElement = (name, options) => {
  const element = create(name, options);
  if (String(name).toLowerCase() === "style") element.nonce = nonce;
  return element;
};

const { setAttribute } = Element.prototype;
Element.prototype.setAttribute = function (name, value) {
  if (name === "style") this.style.cssText = value;
  else setAttribute.call(this, name, value);
};

const { get, set } = Object.getOwnPropertyDescriptor(Element.prototype, "innerHTML");
Object.defineProperty(Element.prototype, "innerHTML", {
  configurable: true,
  get,
  set(markup) {
    set.call(this, String(markup ?? "").replace(/ style="/g, ' data-style="'));
    for (const element of this.querySelectorAll("[data-style]")) {
      element.style.cssText = element.dataset.style;
      delete element.dataset.style;
    }
  },
});

const fetched = async (path) => {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
};

const script = (src) => new Promise((resolve, reject) => {
  document.body.append(Object.assign(create("script"), { src, onload: resolve, onerror: reject }));
});

const list = (lines) => lines.map((line) => `- ${line}`).join("\n");

const introduction = (api) => [
  api.info.description,
  "Send the access token of a user as `Authorization: Bearer …`: paste it under Authentication to try a request here, or "
    + "get one by trying the sign-in. The documents behind this page are [/openapi.json](/openapi.json) and "
    + "[/asyncapi.json](/asyncapi.json).",
  "## Error codes",
  "An error is an `application/problem+json` with one of these codes.",
  list(Object.entries(api["x-error-codes"]).map(([code, rule]) =>
    `\`${code}\` (${rule.status}${rule.retryable ? ", retryable" : ""}): ${rule.meaning}`)),
  "## WebSocket close codes",
  list(api["x-close-codes"].map((close) =>
    `**${close.code}** \`${close.reason}\`: ${close.meaning} ${close.reconnect ? "Reconnect." : "Do not reconnect."}`)),
].join("\n\n");

// Scalar reads OpenAPI alone, whose word for messages that are not answers is `webhooks`.
const withMessages = (api, streams) => {
  const sent = new Set(Object.values(streams.operations)
    .filter(({ action }) => action === "receive")
    .flatMap(({ messages }) => messages.map(({ $ref }) => $ref.split("/").pop())));
  const webhooks = Object.fromEntries(Object.entries(streams.components.messages).map(([key, message]) => [
    key,
    {
      post: {
        operationId: `stream_${key}`,
        tags: [sent.has(key) ? "frames" : "events"],
        summary: message.name,
        description: message.summary,
        requestBody: {
          content: {
            "application/json": {
              schema: message.payload,
              examples: Object.fromEntries(message.examples.map(({ payload }, at) =>
                [`Example ${at + 1}`, { value: payload }])),
            },
          },
        },
        responses: {},
      },
    },
  ]));
  return {
    ...api,
    servers: [{ url: location.origin }],
    info: { ...api.info, description: introduction(api) },
    webhooks,
    tags: [
      ...api.tags,
      { name: "frames", description: "What a client sends over the WebSocket `/api/v1/chat/stream`, as JSON text." },
      { name: "events", description: "What a client receives over the WebSocket and in event streams. Numbered events "
        + "reach all of the user's connections; ignore events and fields that you do not know." },
    ],
    components: { ...api.components, schemas: { ...streams.components.schemas, ...api.components.schemas } },
  };
};

// The `type` of a problem is a link to its code on this page.
const showCode = () => {
  const code = decodeURIComponent(location.hash.slice(1));
  const found = [...document.querySelectorAll("li code")].find((element) => element.textContent === code);
  found?.scrollIntoView({ block: "center" });
  return Boolean(found);
};

const draw = async () => {
  const [api, streams] = await Promise.all([fetched("/openapi.json"), fetched("/asyncapi.json"), script("/pages/scalar.js")]);
  const hash = decodeURIComponent(location.hash.slice(1));
  window.Scalar.createApiReference("#reference", {
    content: withMessages(api, streams),
    agent: { disabled: true },
    authentication: { preferredSecurityScheme: "bearer" },
    mcp: { disabled: true },
    defaultHttpClient: { targetKey: "shell", clientKey: "curl" },
    documentDownloadType: "none", // it would be the document as changed here
    hideClientButton: true,
    persistAuth: false,
    proxyUrl: "",
    showDeveloperTools: "never",
    telemetry: false,
    withDefaultFonts: false,
  });
  if (hash in api["x-error-codes"]) {
    const observer = new MutationObserver(() => showCode() && observer.disconnect());
    observer.observe(document.body, { childList: true, subtree: true });
  }
  window.addEventListener("hashchange", showCode);
};

draw().catch((error) => {
  document.getElementById("reference").textContent = `The reference could not be loaded: ${error.message ?? "a request failed"}`;
});
