// Prints what @asyncapi/parser finds in a document; exits with 1 if it finds anything.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
for (const { code, path, message } of diagnostics) console.log(code, path.join("."), message);
console.log(`${document?.allMessages().all().length ?? 0} messages`);
process.exitCode = document && diagnostics.length === 0 ? 0 : 1;
