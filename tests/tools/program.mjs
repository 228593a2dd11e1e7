// A program of @arcadeai/arcadejs, as its documentation has them. Prints what it finds, one JSON value per line;
// a line {"open": URL} is for the user, and the program waits until they have agreed.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [home, baseURL] = process.argv.slice(2);
const entry = createRequire(`${home}/`).resolve("@arcadeai/arcadejs");
const { Arcade } = await import(pathToFileURL(entry));
const client = new Arcade({ baseURL, apiKey: "none", maxRetries: 0, timeout: 20_000 });
const say = (value) => console.log(JSON.stringify(value));

const page = await client.tools.list({ toolkit: "Gmail", limit: 2 });
say({ items: page.items.length, total: page.total_count });
let count = 0;
for await (const tool of client.tools.list({ limit: 50 })) count += tool.qualified_name ? 1 : 0;
say({ count });
const tool = await client.tools.get("Gmail.ListLabels", { user_id: "alice", include_format: ["openai"] });
say({ met: tool.requirements.met, name: tool.formatted_schema.openai.function.name });
const formatted = await client.tools.formatted.list({ format: "anthropic", limit: 1 });
say({ formatted: Object.keys(formatted.items[0]) });

const call = { tool_name: "Gmail.ListLabels", user_id: "bob", input: {} };
const refused = await client.tools.execute(call);
say({ success: refused.success, kind: refused.output.error.kind });
const asked = await client.tools.authorize({ tool_name: "Gmail.ListLabels", user_id: "bob" });
say({ same: asked.url === refused.output.authorization.url, status: asked.status });
say({ open: asked.url });
const ended = await client.auth.waitForCompletion(asked);
say({ status: ended.status, token: ended.context?.token ?? null });
const done = await client.tools.execute(call);
say({ success: done.success, status: done.status, value: done.output.value });

const started = await client.auth.start("carol", "google", { scopes: tool.requirements.authorization.oauth2.scopes });
say({ open: started.url });
say({ status: (await client.auth.waitForCompletion(started)).status });
try {
  await client.tools.get("Nobody.Nothing");
} catch (error) {
  say({ error: error.constructor.name, status: error.status, code: error.error.code });
}
say({ healthy: (await client.health.check()).healthy });
