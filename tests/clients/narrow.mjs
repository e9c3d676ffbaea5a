// Narrows the cot1_ token on standard input by the caveats given, with the macaroon package.
import macaroon from "macaroon";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const text = Buffer.concat(chunks).toString().trim();
const m = macaroon.importMacaroon(new Uint8Array(Buffer.from(text.slice("cot1_".length), "base64url")));
for (const caveat of process.argv.slice(2)) m.addFirstPartyCaveat(caveat);
process.stdout.write("cot1_" + Buffer.from(m.exportBinary()).toString("base64url"));
