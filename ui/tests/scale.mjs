// 200 packs and 1 000 rollouts: what the overview asks for.

import assert from "node:assert/strict";

import { close, open, read } from "./browser.mjs";
import { api, publish, serving } from "./server.mjs";

const PACKS = 200;
const ROLLOUTS = 1_000;
/** Packs whose last rollout is under way. */
const ACTIVE = 10;
/** What the overview may take to load without its files: requests, and bytes as they are sent. */
const MOST_REQUESTS = 4;
const MOST_BYTES = 400_000;

export const { base } = await serving("scale", { default: { replies: ["Yes."] } });
const order = (pack, order, body) => api(base, `/packs/${pack}/rollout/${order}`, { method: "POST", body: { reason: "for scale", ...body } });
const packs = Array.from({ length: PACKS }, (_, index) => `pack-${String(index).padStart(3, "0")}`);
/** Each pack has so many rollouts behind it, the first ones one that is under way. */
async function filled(pack, index) {
    await publish(base, { pack, version: "1.0.0", text: "One." });
    const each = ROLLOUTS / PACKS;
    for (let number = 1; number <= each; number++) {
        await publish(base, { pack, version: `1.${number}.0`, text: `Number ${number}.` });
        if (number === each && index < ACTIVE) return;
        await order(pack, number % 2 === 0 ? "rollback" : "promote", number % 2 === 0 ? {} : { full: true });
    }
}
const waiting = packs.entries();
await Promise.all(
    Array.from({ length: 8 }, async () => {
        for (const [index, pack] of waiting) await filled(pack, index);
    }),
);

export const tests = {
    async "the overview of 200 packs and 1 000 rollouts is one small answer"() {
        for (const pack of [packs[0], packs.at(-1)]) {
            assert.equal((await api(base, `/rollouts?pack=${pack}&limit=200`)).rollouts.length, ROLLOUTS / PACKS);
        }
        const page = await open(`${base}/oncall`);
        await read(page);
        const asked = [];
        page.on("response", async (response) => {
            if (new URL(response.url()).pathname.startsWith("/api/") && !response.url().endsWith("/stream")) asked.push(response);
        });
        await page.goto(`${base}/`);
        await page.getByRole("heading", { name: `${ACTIVE} active rollouts` }).waitFor();
        const usable = await page.evaluate(() => performance.now());
        await page.getByRole("heading", { name: `${PACKS - ACTIVE} quiet packs` }).waitFor();
        assert.ok(asked.length <= MOST_REQUESTS, asked.map((response) => response.url()).join(" "));
        let bytes = 0;
        for (const response of asked) bytes += (await response.body()).length;
        assert.ok(bytes <= MOST_BYTES, `${bytes} bytes`);
        // The list of quiet packs is cut until somebody asks for all of it.
        assert.ok((await page.getByRole("row").count()) <= 51);
        console.log(`   usable after ${usable.toFixed(0)} ms, ${asked.length} requests, ${bytes} bytes`);
        await close(page);
    },
};
