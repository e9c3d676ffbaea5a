// Seals standard input to the recipients given, with the age-encryption package.
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto; // Debian 12's Node.js 18 has it, but not as a global
const { Encrypter } = await import("age-encryption");

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const e = new Encrypter();
for (const recipient of process.argv.slice(2)) e.addRecipient(recipient);
process.stdout.write(Buffer.from(await e.encrypt(Buffer.concat(chunks))));
