// Talks to a running server through connections that are cut again and again, on two devices at once, and compares what
// they show with the history. CHAT_URL, CHAT_TOKEN, and the number of messages; exits with 1 if anything differs.
import { type Chat, type ChatState, createChat } from "../src/index.js";
import type { History } from "../src/wire.js";

const [url, token, count] = [process.env["CHAT_URL"]!, process.env["CHAT_TOKEN"]!, Number(process.argv[2] ?? 20)];
const SHORTEST = 3; // frames that a connection lives
const LONGEST = 25;

let cuts = 0;
class CutSocket extends WebSocket {
  constructor(address: string) {
    super(address);
    let frames = SHORTEST + Math.floor(Math.random() * (LONGEST - SHORTEST));
    this.addEventListener("message", () => {
      if (--frames === 0) this.close();
      if (frames === 0) cuts += 1;
    });
  }
}

const devices = {
  "cut socket": createChat({ url, getToken: () => token, storage: null, WebSocket: CutSocket }),
  "event stream": createChat({ url, getToken: () => token, storage: null, transport: "sse" }),
};

function until(chat: Chat, condition: (state: ChatState) => boolean): Promise<void> {
  return new Promise((resolve) => {
    const check = () => condition(chat.state) && (stop(), resolve());
    const stop = chat.subscribe(check);
    check();
  });
}

async function history(): Promise<string[]> {
  const texts: string[] = [];
  for (let before = ""; ; ) {
    const answer = await fetch(`${url}/api/v1/chat/history?limit=100${before}`, { headers: { Authorization: `Bearer ${token}` } });
    const page = (await answer.json()) as History;
    texts.unshift(...page.data.map(({ content }) => content).reverse());
    if (!page.has_more) return texts;
    before = `&before=${encodeURIComponent(page.next_cursor!)}`;
  }
}

const chats = Object.values(devices);
for (let number = 0; number < count; number++) {
  const chat = chats[number % 2]!;
  const turnId = await chat.send(`message ${number}: é€😀 ${"x".repeat(number)}`);
  console.log(`accepted ${number}`);
  await chat.ended(turnId);
}
const stored = await history();
let isEqual = stored.length > count;
for (const [name, chat] of Object.entries(devices)) {
  await until(chat, ({ connection, messages, reply }) => connection === "online" && !reply && messages.length >= Math.min(stored.length, 50));
  while (chat.state.history.hasMore) await chat.loadOlder();
  const shown = chat.state.messages.map(({ text }) => text);
  const isSame = JSON.stringify(shown) === JSON.stringify(stored);
  console.log(`${name}: ${shown.length} messages shown, ${stored.length} stored, ${isSame ? "equal" : "DIFFERENT"}`);
  if (!isSame) console.log(JSON.stringify({ shown, stored }));
  isEqual &&= isSame;
  chat.close();
}
console.log(`${cuts} cuts`);
process.exit(isEqual && cuts ? 0 : 1);
