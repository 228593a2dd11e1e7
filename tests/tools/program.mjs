// A program of @arcadeai/arcadejs, as its documentation has them. Prints what it finds, one JSON value per line;
// a line {"open": URL} is for the user, and the program waits until they have agreed.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [home, baseURL] = process.argv.slice(2);
const resolve = (name) => pathToFileURL(createRequire(`${home}/`).resolve(name));
const { Arcade } = await import(resolve("@arcadeai/arcadejs"));
const { executeOrAuthorizeZodTool, toZodToolSet } = await import(resolve("@arcadeai/arcadejs/lib/index"));
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
const refused = await client.tools.execute(call).catch((error) => error);
say({ status: refused.status, kind: refused.error.output.error.kind, link: refused.error.connect_url !== undefined });
const set = toZodToolSet({ tools: [tool], client, userId: "bob", executeFactory: executeOrAuthorizeZodTool });
const needed = await set.Gmail_ListLabels.execute({});
say({ authorization_required: needed.authorization_required });
const asked = await client.tools.authorize({ tool_name: "Gmail.ListLabels", user_id: "bob" });
say({ same: asked.url === refused.error.output.authorization.url && asked.url === needed.url, status: asked.status });
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
