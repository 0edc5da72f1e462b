// A User-Agent header in words: "Chrome on Linux", "chat talk on macOS". What is not known is named as it names itself.
const PROGRAMS: [RegExp, string][] = [
  [/^chat-talk\b/, "chat talk"],
  [/^ai-chat-client-python\b/, "ai-chat-client (Python)"],
  [/^ai-chat-client-js\b/, "ai-chat-client (JavaScript)"],
  [/Edg(e|A|iOS)?\//, "Edge"],
  [/OPR\/|Opera/, "Opera"],
  [/YaBrowser\//, "Yandex Browser"],
  [/SamsungBrowser\//, "Samsung Internet"],
  [/(Firefox|FxiOS)\//, "Firefox"],
  [/HeadlessChrome\//, "Chrome (headless)"],
  [/(Chrome|CriOS)\//, "Chrome"],
  [/Version\/.*Safari\//, "Safari"],
];
const SYSTEMS: [RegExp, string][] = [
  [/iPhone|iPod/, "iPhone"],
  [/iPad/, "iPad"],
  [/Android/, "Android"],
  [/CrOS/, "ChromeOS"],
  [/Windows/, "Windows"],
  [/Mac OS X|Macintosh|macOS/, "macOS"],
  [/Linux/, "Linux"],
];
const LONGEST = 60; // characters

/** null: nothing is known. `join` says a program and its system. */
export function deviceName(userAgent: string | null, join: (program: string, system: string) => string): string | null {
  if (!userAgent) return null;
  const known = PROGRAMS.find(([pattern]) => pattern.test(userAgent))?.[1];
  const system = SYSTEMS.find(([pattern]) => pattern.test(userAgent))?.[1];
  const program = known ?? userAgent.split(/[/(]/)[0]!.slice(0, LONGEST).trim();
  return system ? join(program, system) : program;
}
