// Conversations of both versions, recorded by a real server, and what each segment shows.

import assert from "node:assert/strict";

import { button, close, faults, open, read, seen } from "./browser.mjs";
import { api, publish, report, say, serving } from "./server.mjs";

const PACK = "help";
const HOSTILE = `<img src=x onerror="document.title='owned'">`;

export const { base, gateway } = await serving(
    "recorded",
    {
        rules: [
            { when: { system_contains: "Careful", user_contains: "lawyer" }, behaviour: { refusal_rate: 1 } },
            { when: { user_contains: "slow" }, behaviour: { replies: ["At last."], latency_ms: { fixed: 400 } } },
        ],
        default: { replies: ["You said: {user}"] },
    },
    { SERIN_SAMPLES_RATE: "100%" },
);
await publish(base, { pack: PACK, version: "1.0.0", text: "Answer." });
const rollout = {
    canaryWeight: undefined,
    stepWeight: 50,
    segments: [
        { name: "staff", weight: "50%", duration: "1h", match: "attributes.staff == true" },
        { name: "everyone", weight: "progressive" },
    ],
    analysis: {
        interval: "1s",
        metrics: [
            { name: "success_rate", threshold: "50%", comparison: ">=", minSamples: 5, maturity: "1s" },
            { name: "task_completion_rate", threshold: "10%", comparison: ">=", minSamples: 5, maturity: "1s" },
        ],
    },
    sessions: { idleTimeout: "1s", maxLifetime: "1m" },
};
await publish(base, { pack: PACK, version: "2.0.0", text: "Careful: answer.", rollout });
for (let user = 0; user < 24; user++) {
    const session = `user-${user}`;
    const text = user % 4 === 0 ? "I want my lawyer" : user % 4 === 1 ? `Write to user-${user}@customers.example ${HOSTILE}` : user % 4 === 2 ? "Why so slow?" : "Hello";
    await say(gateway, { pack: PACK, session, text, attributes: { staff: user < 20 } });
    await report(gateway, { pack: PACK, session, name: "task_completion", value: user % 3 === 0 ? 0 : 1 });
}

/** The texts of the samples on one side of the page. */
const side = (page, name) => page.getByRole("region", { name, exact: true }).locator("article");
const choose = (page, filter, value) => page.getByRole("combobox", { name: filter }).selectOption(value);
/** Waits until each side of the page has so many samples. */
const count = (page, stable, canary) =>
    page.waitForFunction(
        ([stable, canary]) =>
            document.querySelectorAll("[aria-labelledby=side-stable] article").length === stable &&
            document.querySelectorAll("[aria-labelledby=side-canary] article").length === canary,
        [stable, canary],
    );
/** Every recorded sample that fits, as the API tells. */
const recorded = async (query) => (await api(base, `/packs/${PACK}/samples?limit=200&${query}`)).samples;

export const tests = {
    async "conversations of both versions are read beside each other and filtered"() {
        const canary = await recorded("variant=canary");
        const stable = await recorded("variant=stable");
        assert.ok(canary.length >= 3 && stable.length >= 8, `${canary.length} on the canary, ${stable.length} on stable`);
        const page = await open(`${base}/packs/${PACK}`);
        await page.getByRole("link", { name: "Conversations", exact: true }).click();
        await count(page, stable.length, canary.length);

        // What was redacted is marked; what is hostile is text.
        assert.equal(await page.getByText("@customers.example").count(), 0);
        await page.locator("mark", { hasText: "redacted email" }).first().waitFor();
        await seen(page, "<img src=x onerror");
        assert.equal(await page.locator("main img").count(), 0);

        const refused = canary.filter((sample) => sample.signals.includes("refusal"));
        await choose(page, "Signal", "refusal");
        await count(page, 0, refused.length);
        await seen(page, "None fits the filter.");
        assert.ok(page.url().endsWith("?signal=refusal"), "the view can be linked to");
        await button(page, "Show everything").click();
        await count(page, stable.length, canary.length);

        await choose(page, "Outcome", "task_completion:0");
        const failed = (samples) => samples.filter((sample) => sample.outcomes.task_completion === 0).length;
        await count(page, failed(stable), failed(canary));
        await choose(page, "Segment", "staff");
        const staff = (samples) => samples.filter((sample) => sample.segment === "staff");
        await count(page, failed(staff(stable)), failed(staff(canary)));
        await choose(page, "Outcome", "");
        await count(page, staff(stable).length, staff(canary).length);
        await close(page);
    },

    async "a metric leads to the conversations behind it, the worst first"() {
        const page = await open(`${base}/packs/${PACK}`);
        await page.getByRole("link", { name: "latency_p95", exact: true }).click();
        await seen(page, "Slowest first");
        await read(page);
        const slowest = await side(page, "Canary").first().textContent();
        assert.ok(slowest.includes("slow"), slowest);
        await page.goBack();
        await page.getByRole("link", { name: "refusal_rate", exact: true }).click();
        await page.waitForFunction(() => document.querySelector("[aria-labelledby=side-canary] article")?.textContent?.includes("refusal"));
        assert.equal(await side(page, "Stable").count(), 0, "stable refused nothing");
        await close(page);
    },

    async "conversations keep the rules of accessibility in both colour schemes, wide and narrow"() {
        for (const colorScheme of ["light", "dark"]) {
            for (const width of [1280, 390]) {
                const page = await open(`${base}/packs/${PACK}/conversations`, { colorScheme, viewport: { width, height: 800 } });
                await read(page);
                assert.deepEqual(await faults(page), [], `${colorScheme}, ${width} px`);
                await close(page);
            }
        }
    },
};
