// What goes on being judged after a rollout has completed.

import assert from "node:assert/strict";

import { button, close, faultsEverywhere, open, read, seen } from "./browser.mjs";
import { api, publish, report, say, serving } from "./server.mjs";

const { base, gateway } = await serving("watched", {
    rules: [{ when: { user_contains: "outage" }, behaviour: { failure_rate: 1, failure: { status: 500 } } }],
    default: { replies: ["Yes."] },
});
const rollout = (watch) => ({
    analysis: { interval: "1s", metrics: [{ name: "success_rate", threshold: "60%", comparison: ">=", minSamples: 5, maturity: "1s" }] },
    watch,
});
let users = 0;
/** So many new users say something, all at once. */
const talk = (pack, text, count = 40) =>
    Promise.all(
        Array.from({ length: count }, async () => {
            const session = `user-${(users += 1)}`;
            await say(gateway, { pack, session, text });
            await report(gateway, { pack, session, name: "task_completion", value: 1 });
        }),
    );

/** A pack whose version 2.0.0 was promoted fully, and is watched; its page. */
async function completed(pack, watch) {
    await publish(base, { pack, version: "1.0.0", text: "One." });
    await talk(pack, "Hello");
    await publish(base, { pack, version: "2.0.0", text: "Two.", rollout: rollout(watch) });
    // Only with a baseline is there something to go on with after the end.
    const isFrozen = async () => (await api(base, `/audit?pack=${pack}&action=baseline_frozen`)).entries.length > 0;
    const page = await open(`${base}/packs/${pack}`);
    await api(base, `/packs/${pack}/rollout/promote`, { method: "POST", body: { reason: "out of Observing" } });
    await talk(pack, "Hello");
    while (!(await isFrozen())) await talk(pack, "Hello", 10);
    await button(page, "Promote fully…").click();
    await page.getByRole("textbox", { name: /^Reason/ }).fill("all is well");
    await button(page, "Make it stable for everyone").click();
    await seen(page, "2.0.0 is stable");
    return page;
}

const state = async (pack) => (await api(base, `/packs/${pack}/rollout`)).watch?.state;

export const tests = {
    async "a completed rollout shows its watch: until when, and what a broken gate would do"() {
        const page = await completed("calm", { duration: "24h", onBreach: "rollback" });
        const why = page.getByRole("region", { name: /2\.0\.0 is stable/ });
        await why.getByText("Watched").waitFor();
        const { watch } = await api(base, "/packs/calm/rollout");
        assert.equal(await why.locator("time").getAttribute("datetime"), watch.until);
        assert.equal(Math.round((Date.parse(watch.until) - Date.parse(watch.since)) / 3_600_000), 24);
        await why.getByText("brings everyone back to the version before").waitFor();
        assert.deepEqual(await faultsEverywhere(page), []);
        await page.setViewportSize({ width: 1280, height: 900 });
        await page.goto(`${base}/`);
        await page.getByRole("row", { name: /calm/ }).getByText("Watched").waitFor();
        await close(page);
    },

    async "a gate that breaks while it is watched is told on the rollout, the overview and the on-call page"() {
        const page = await completed("late", { duration: "24h" });
        await page.getByText("is told to people; nothing is rolled back").waitFor();
        while ((await state("late")) !== "breached") await talk("late", "Is there an outage?", 20);
        await seen(page, "Gate broken while watched");
        await page.getByRole("heading", { name: "2.0.0 is stable, and breaks a gate" }).waitFor();
        await page.goto(`${base}/`);
        await page.getByRole("row", { name: /late/ }).getByText("Gate broken while watched").waitFor();
        await page.goto(`${base}/oncall`);
        await read(page);
        await page.getByRole("heading", { name: "Stable breaks a gate" }).waitFor();
        await seen(page, /needs? a look/);
        await page.getByRole("article", { name: "late" }).getByRole("button", { name: "Undo…" }).click();
        await seen(page, "Everyone gets 1.0.0 again at once; 2.0.0 stops being stable.");
        await page.keyboard.press("Escape");
        assert.deepEqual(await faultsEverywhere(page), []);
        await close(page);
    },

    async "with onBreach rollback everyone is back on the version before, and the page says so"() {
        const page = await completed("strict", { duration: "24h", onBreach: "rollback" });
        while ((await api(base, "/packs/strict")).stable !== "1.0.0") await talk("strict", "Is there an outage?", 20);
        await page.waitForFunction(() => document.querySelector("header .facts")?.textContent?.includes("stable 1.0.0"));
        await page.getByRole("heading", { name: /^Undone .*: everyone is on 1\.0\.0/ }).waitFor();
        await seen(page, /success_rate .* is proven to be broken since the rollout completed \(serin\)/);
        await page.goto(`${base}/audit?pack=strict&action=watch_breached`);
        await page.getByRole("listitem").filter({ hasText: "watch breached" }).waitFor();
        await close(page);
    },
};
