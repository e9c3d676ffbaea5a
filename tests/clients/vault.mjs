// node-vault, as it comes: what it does with ADDRESS, a token and a secret id on standard input, and tells as JSON.
import nodeVault from "node-vault";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { address, token, roleId, secretId } = JSON.parse(Buffer.concat(chunks).toString());
const vault = nodeVault({ apiVersion: "v1", endpoint: address, token });
const out = {};
const failure = async (promise) => promise.then(() => null, (e) => ({ message: e.message, status: e.response && e.response.statusCode }));

out.health = (await vault.health()).initialized;
out.status = (await vault.status()).sealed;
out.mounts = Object.keys((await vault.mounts()).data).sort();
await vault.write("secret/data/app/node", { data: { user: "n", n: 5 } });
out.read = (await vault.read("secret/data/app/node")).data.data;
out.list = (await vault.list("secret/metadata/app")).data.keys;
await vault.update("secret/data/app/node", { data: { user: "m" } }).catch((e) => { out.update = e.message; });
await vault.delete("secret/data/app/node");
out.deleted = await failure(vault.read("secret/data/app/node"));
out.denied = await failure(vault.read("secret/data/other/x"));
out.absent = await failure(vault.read("secret/data/app/nosuch"));
await vault.write("old/node", { v: "1" });
out.v1 = (await vault.read("old/node")).data;
await vault.delete("old/node");
const made = await vault.tokenCreate({ policies: ["app"], ttl: "10m" });
out.child = (await vault.tokenLookup({ token: made.auth.client_token })).data.policies;
out.accessor = (await vault.tokenLookupAccessor({ accessor: made.auth.accessor })).data.accessor === made.auth.accessor;
const child = nodeVault({ apiVersion: "v1", endpoint: address, token: made.auth.client_token });
out.renewed = (await child.tokenRenewSelf({ increment: "5m" })).auth.lease_duration;
await child.tokenRevokeSelf();
out.revoked = await failure(child.tokenLookupSelf());
const login = nodeVault({ apiVersion: "v1", endpoint: address });
out.login = (await login.approleLogin({ role_id: roleId, secret_id: secretId })).auth.policies;
out.loggedIn = (await login.read("secret/data/app/kept")).data.data;
vault.token = token; // it took over the one that it made
const wrapped = await vault.request({ path: "/sys/wrapping/wrap", method: "POST", json: { a: "b" }, headers: { "X-Vault-Token": token, "X-Vault-Wrap-TTL": "60" } });
out.unwrapped = (await vault.unwrap({ token: wrapped.wrap_info.token })).data;
out.again = await failure(vault.unwrap({ token: wrapped.wrap_info.token }));
vault.token = token;
out.signature = (await vault.write("transit/sign/release/web", { input: Buffer.from("x").toString("base64") })).data.signature.slice(0, 9);
process.stdout.write(JSON.stringify(out));
