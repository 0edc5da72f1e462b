import { expect, test } from "vitest";
import { deviceName } from "../src/account/user_agent";

const join = (browser: string, system: string) => `${browser} on ${system}`;
const MOZILLA = "Mozilla/5.0";
const WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)";

test.each([
  [`${MOZILLA} (X11; Linux x86_64) ${WEBKIT} Chrome/142.0.0.0 Safari/537.36`, "Chrome on Linux"],
  [`${MOZILLA} (Windows NT 10.0; Win64; x64) ${WEBKIT} Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0`, "Edge on Windows"],
  [`${MOZILLA} (Windows NT 10.0; Win64; x64) ${WEBKIT} Chrome/140.0.0.0 YaBrowser/25.10 Safari/537.36`, "Yandex Browser on Windows"],
  [`${MOZILLA} (Macintosh; Intel Mac OS X 10.15; rv:145.0) Gecko/20100101 Firefox/145.0`, "Firefox on macOS"],
  [`${MOZILLA} (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1`, "Safari on iPhone"],
  [`${MOZILLA} (Linux; Android 16; Pixel 9) ${WEBKIT} Chrome/142.0.0.0 Mobile Safari/537.36`, "Chrome on Android"],
  ["chat-talk (Linux)", "chat talk on Linux"],
  ["ai-chat-client-python (macOS)", "ai-chat-client (Python) on macOS"],
  ["ai-chat-client-js (Windows)", "ai-chat-client (JavaScript) on Windows"],
  ["my-bot (Linux)", "my-bot on Linux"],
  ["python-httpx/0.28.1", "python-httpx"],
  ["curl/8.14.1", "curl"],
])("%s", (userAgent, name) => {
  expect(deviceName(userAgent, join)).toBe(name);
});

test("what is not known is not named, and a long name is cut", () => {
  expect(deviceName(null, join)).toBeNull();
  expect(deviceName("x".repeat(500), join)).toHaveLength(60);
});
