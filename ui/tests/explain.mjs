// Which version a session gets, why, and what comes next; on the server that conversations.mjs has started.

import assert from "node:assert/strict";

import { button, close, expectingErrors, faultsEverywhere, open, read, seen } from "./browser.mjs";
import { base, gateway } from "./conversations.mjs";
import { api, publish, say } from "./server.mjs";

const PACK = "asked";
await publish(base, { pack: PACK, version: "1.0.0", text: "Answer." });
await publish(base, {
    pack: PACK,
    version: "2.0.0",
    text: "Answer well.",
    rollout: {
        segments: [
            { name: "staff", weight: "50%", duration: "1h", match: "attributes.staff == true" },
            { name: "everyone", weight: "progressive" },
        ],
    },
});
await say(gateway, { pack: PACK, session: "user-0", text: "Hello", attributes: { staff: true } });

const explained = (query) => api(base, `/packs/${PACK}/explain?${new URLSearchParams(query)}`);
const upper = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Asks on the page. */
async function ask(page, kind, who, attributes = "") {
    await page.getByLabel("By").selectOption(kind);
    await page.getByLabel("Key or id").fill(who);
    await page.getByLabel(/Attributes/).fill(attributes);
    await button(page, "Explain").click();
}

export const tests = {
    async "a session is explained: its version, why, and what the next step does to it"() {
        const page = await open(`${base}/packs/${PACK}`);
        await page.getByRole("link", { name: "Explain", exact: true }).click();
        await seen(page, /A new session gets|Every new session gets/);

        const session = "user-0";
        const told = await explained({ session });
        assert.equal(told.reason, "PINNED", "the session has talked before");
        await ask(page, "session", session);
        await page.getByRole("heading", { name: `Session ${session} gets ${told.version} (${told.variant})` }).waitFor();
        await seen(page, "it had this version before");
        await seen(page, "Has it since");
        // The time to the next step goes on, so the words after it are compared.
        await seen(page, told.next.message.slice(told.next.message.indexOf(";") + 2));
        await seen(page, "Next, it keeps its version");
        assert.ok(page.url().endsWith(`?session=${session}`), "the answer can be linked to");

        // Somebody new is told by segment and key; asking makes no pin.
        const fresh = await explained({ session: "never-seen", attributes: JSON.stringify({ staff: true }) });
        await ask(page, "session", "never-seen", `{"staff": true}`);
        await page.getByRole("heading", { name: `Session never-seen gets ${fresh.version} (${fresh.variant})` }).waitFor();
        await seen(page, upper(fresh.message.slice(fresh.message.indexOf(": ") + 2)));
        await seen(page, `${fresh.bucket.toLocaleString("en")} of 10,000`);
        await page.getByRole("listitem").filter({ hasText: "staff" }).getByText("matches").waitFor();
        assert.equal((await explained({ session: "never-seen" })).pin, null, "asking pins nobody");
        await close(page);
    },

    async "a response leads to its session, and one that nobody knows is said to be unknown"() {
        const { id, version } = await say(gateway, { pack: PACK, session: "asker", text: "Hello", attributes: { staff: true } });
        const page = await open(`${base}/packs/${PACK}/explain`);
        await read(page);
        await ask(page, "response", id);
        await page.getByRole("heading", { name: `Session asker gets ${version}` }).waitFor();
        await seen(page, `was given by ${version}`);
        await expectingErrors(async () => {
            await ask(page, "response", "chatcmpl-nobody");
            await page.getByRole("alert").getByText("Nothing is known of response").waitFor();
        });
        await page.goBack();
        await page.getByRole("heading", { name: `Session asker gets ${version}` }).waitFor();
        await close(page);
    },

    async "a conversation leads to why its session has its version"() {
        const page = await open(`${base}/packs/${PACK}/conversations`);
        await page.locator("article a").first().waitFor();
        const link = page.locator("article a").first();
        const session = await link.textContent();
        await link.click();
        await page.getByRole("heading", { name: `Session ${session} gets` }).waitFor();
        await close(page);
    },

    async "explaining keeps the rules of accessibility in both colour schemes, wide and narrow"() {
        const page = await open(`${base}/packs/${PACK}/explain?session=user-0`);
        await read(page);
        assert.deepEqual(await faultsEverywhere(page), [], "a session");
        await page.goto(`${base}/packs/${PACK}/explain?attributes=${encodeURIComponent('{"staff": true}')}`);
        await read(page);
        assert.deepEqual(await faultsEverywhere(page), [], "any new session");
        await close(page);
    },
};
