// Clients that openapi-typescript with openapi-fetch and @hey-api/openapi-ts generate: each registers, talks and pages
// through the history.
import createClient from "openapi-fetch";
import type { paths } from "./generated/fetch.js";
import { createClient as createHey } from "./generated/hey/client/index.js";
import { authRegister, chatHistory, chatMessage } from "./generated/hey/index.js";

const baseUrl = process.env["CHAT_URL"] ?? "";
const password = "correct horse battery";
const known = <T>(value: T | undefined | null): T => {
  if (value === undefined || value === null) throw new Error("nothing was returned");
  return value;
};

const withFetch = async (): Promise<string[]> => {
  const client = createClient<paths>({ baseUrl });
  const registered = await client.POST("/api/v1/auth/register", {
    body: { email: "fetch@example.com", password, name: "Ada" },
  });
  const session = known(registered.data);
  if (!("access_token" in session)) throw new Error(session.status);
  const headers = { Authorization: `Bearer ${session.access_token}` };
  const sent = await client.POST("/api/v1/chat/message", { headers, body: { content: "Hello", stream: false } });
  const turn = known(sent.data);
  if (!("message" in turn)) throw new Error("an event, which is not JSON"); // of the other media type of the answer
  const texts = [known(turn.message).content];
  let before: string | undefined;
  do {
    const page = await client.GET("/api/v1/chat/history", {
      headers,
      params: { query: { limit: 1, ...(before === undefined ? {} : { before }) } },
    });
    const { data, next_cursor } = known(page.data);
    texts.push(...data.map(({ content }) => content));
    before = next_cursor ?? undefined;
  } while (before !== undefined);
  const refused = await client.GET("/api/v1/chat/history");
  return [...texts, known(refused.error).code];
};

const withHey = async (): Promise<string[]> => {
  const client = createHey({ baseUrl });
  const registered = await authRegister({ client, body: { email: "hey@example.com", password, name: "Ada" } });
  const session = known(registered.data);
  if (!("access_token" in session)) throw new Error(session.status);
  const signedIn = createHey({ baseUrl, auth: session.access_token });
  const sent = await chatMessage({ client: signedIn, body: { content: "Hello", stream: false } });
  const texts = [known(known(sent.data).message).content];
  let before: string | undefined;
  do {
    const page = await chatHistory({
      client: signedIn,
      query: { limit: 1, ...(before === undefined ? {} : { before }) },
    });
    const { data, next_cursor } = known(page.data);
    texts.push(...data.map(({ content }) => content));
    before = next_cursor ?? undefined;
  } while (before !== undefined);
  const refused = await chatHistory({ client });
  return [...texts, known(refused.error).code];
};

console.log(JSON.stringify([await withFetch(), await withHey()]));
