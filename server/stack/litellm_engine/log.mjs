// One JSON line on stderr per event, as the native engine logs.

export function log(level, message) {
  process.stderr.write(`${JSON.stringify({ level, message, target: 'litellm-engine' })}\n`);
}
