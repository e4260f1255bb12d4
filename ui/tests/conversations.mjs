// Conversations of both versions, recorded by a real server, and what each segment shows.

import assert from "node:assert/strict";

import { button, close, faults, faultsEverywhere, open, read, seen } from "./browser.mjs";
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
// Enough of them for a baseline, from which on sessions mature.
await Promise.all(
    Array.from({ length: 60 }, async (_, user) => {
        await say(gateway, { pack: PACK, session: `early-${user}`, text: "Hello" });
        await report(gateway, { pack: PACK, session: `early-${user}`, name: "task_completion", value: 1 });
    }),
);
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
await api(base, `/packs/${PACK}/rollout/promote`, { method: "POST", body: { reason: "to the first stage" } });
const SAYINGS = ["I want my lawyer", `Write to ana@customers.example ${HOSTILE}`, "Why so slow?", "Hello"];
let users = 0;
/** Somebody new says something and reports how it went; the variant that answered. */
async function somebody(text, isStaff) {
    const user = users++;
    const session = `user-${user}`;
    const { variant } = await say(gateway, { pack: PACK, session, text, attributes: { staff: isStaff } });
    await report(gateway, { pack: PACK, session, name: "task_completion", value: user % 3 === 0 ? 0 : 1 });
    return variant;
}
for (const text of SAYINGS) {
    // Who gets which version is drawn: it is said until it was said to both.
    const variants = new Set();
    for (let staff = 0; staff < 5 || variants.size < 2; staff++) variants.add(await somebody(text, true));
    await somebody(text, false);
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
        assert.ok(refused.length > 0);
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

    async "each segment of a rollout shows its weight, its sessions and its gates"() {
        const read = async () => (await api(base, `/rollouts/${PACK}-r1`)).segments.find((segment) => segment.name === "staff");
        const isRead = ({ metrics, matured, sessions }) => {
            const seen = metrics.find(({ metric }) => metric === "success_rate");
            return seen?.stable_samples === sessions.stable && seen.canary_samples === sessions.canary && matured.canary === sessions.canary;
        };
        let staff = await read();
        while (!isRead(staff)) staff = await read();
        assert.ok(staff.sessions.canary > 0 && staff.sessions.stable > 0);
        const page = await open(`${base}/packs/${PACK}`);
        const bySegment = page.getByRole("region", { name: "By segment", exact: true });
        await seen(page, `${staff.sessions.canary} sessions on the canary, ${staff.sessions.stable} on stable`);
        const [first, second] = await bySegment.getByRole("listitem").all();
        assert.match(await first.textContent(), /attributes\.staff == true.*50% of its new sessions get the canary/s);
        assert.match(await second.textContent(), /everyone.*0% of its new sessions get the canary.*0 sessions on the canary, 4 on stable/s);
        assert.match(await page.locator("#why").textContent(), /10% of new sessions of everyone/, "what comes next names the segment");

        await first.getByText("Metrics of staff").click();
        const metrics = first.getByRole("region", { name: "Metrics of staff side by side" });
        const row = await metrics.getByRole("row", { name: /^success_rate/ }).textContent();
        const told = staff.metrics.find(({ metric }) => metric === "success_rate");
        assert.ok(row.includes(`${told.stable_samples} / ${told.canary_samples}`) && row.includes(told.canary_shown), row);
        assert.deepEqual(await faults(page), []);
        await first.getByRole("link", { name: "Conversations of staff" }).click();
        await count(page, staff.sessions.stable, staff.sessions.canary);
        // One weight would say that nobody gets it.
        await page.goto(`${base}/`);
        await page.getByRole("article", { name: PACK, exact: true }).getByText("staff 50%").first().waitFor();
        await close(page);
    },

    async "conversations and segments keep the rules of accessibility in both colour schemes, wide and narrow"() {
        const page = await open(`${base}/packs/${PACK}`);
        await read(page);
        assert.deepEqual(await faultsEverywhere(page), [], "segments");
        await page.goto(`${base}/packs/${PACK}/conversations`);
        await read(page);
        assert.deepEqual(await faultsEverywhere(page), [], "conversations");
        await close(page);
    },
};
