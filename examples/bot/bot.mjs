// Sends each line of its input to the agent, and prints the replies while they are written.
//
//   CHAT_URL=http://127.0.0.1:8080 CHAT_KEY=chat_… node bot.mjs < questions.txt
//
// CHAT_KEY is an API key with the scopes `read` and `chat`. Lost connections and restarts of the server are the client's.
import { createChat } from "@ai-chat-platform/client";
import { createInterface } from "node:readline";

const { CHAT_URL: url, CHAT_KEY: key } = process.env;
if (!url || !key) throw new Error("set CHAT_URL and CHAT_KEY");

const chat = createChat({ url, getToken: () => key });
chat.on("message.delta", ({ text }) => process.stdout.write(text));
chat.on("tool.called", ({ name }) => process.stderr.write(`[${name}]\n`));

try {
  for await (const line of createInterface({ input: process.stdin })) {
    if (!line.trim()) continue;
    const { reply } = await chat.ended(await chat.send(line));
    if (reply?.error) throw reply.error;
    process.stdout.write(`\n($${reply?.cost ?? "?"})\n`);
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  chat.close();
}
