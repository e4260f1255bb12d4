// How smooth charts are: SERIN_BIN=target/debug/serin node ui/tests/smooth.mjs
//
// The page of a real rollout shows 16 charts, each of a day of one-minute points, which no server can have measured in
// the time of a test: they are put into its answer. Printed are the frames while the charts come up, while the mouse
// moves over them with its values, while somebody looks closer, and while new points come in.

import { browser, close, open, read } from "./browser.mjs";
import { endAll, publish, serving } from "./server.mjs";

const CHARTS = 16;
const MINUTES = 1_440;
const PACK = "smooth";

const { base } = await serving("smooth", { default: { replies: ["Yes."] } });
await publish(base, { pack: PACK, version: "1.0.0", text: "One." });
await publish(base, { pack: PACK, version: "1.1.0", text: "Two." });

let minutes = MINUTES;
const begun = Date.now() - MINUTES * 60_000;
const point = (chart, minute) => {
    const wave = Math.sin(minute / (40 + chart * 7)) * 0.02 + Math.sin(minute * 1.7 + chart) * 0.01;
    return { at: new Date(begun + minute * 60_000).toISOString(), step: 0, stable: 0.93 + wave, canary: 0.95 - wave / 2 };
};
const series = (from) =>
    Array.from({ length: CHARTS }, (_, chart) => ({
        metric: `metric_${chart}`,
        unit: "share",
        gate: chart < 6 ? ">= 90%" : null,
        points: Array.from({ length: minutes - from }, (_, index) => point(chart, from + index)),
    }));

const page = await open("about:blank");
await page.route("**/api/v1/rollouts/*/series*", (route) => {
    const from = new URL(route.request().url()).searchParams.has("after") ? minutes - 1 : 0;
    return route.fulfill({ json: { rollout: `${PACK}-r1`, series: series(from) } });
});
await page.goto(`${base}/packs/${PACK}`);
await read(page);
await page.getByText("Over time").scrollIntoViewIfNeeded();

/** Notes how long each frame takes from now on, and what keeps the page busy. */
async function noting(what, does) {
    await page.evaluate(() => {
        globalThis.frames = [];
        globalThis.isNoting = true;
        let last = performance.now();
        requestAnimationFrame(function frame(now) {
            globalThis.frames.push(now - last);
            last = now;
            if (globalThis.isNoting) requestAnimationFrame(frame);
        });
    });
    await does();
    const frames = await page.evaluate(() => {
        globalThis.isNoting = false;
        return globalThis.frames.slice(1);
    });
    frames.sort((a, b) => a - b);
    const at = (share) => frames[Math.min(frames.length - 1, Math.floor(frames.length * share))].toFixed(1);
    const late = frames.filter((frame) => frame > 25).length;
    console.log(`${what}: ${frames.length} frames, half within ${at(0.5)} ms, 99% within ${at(0.99)} ms, longest ${at(1)} ms, ${late} later than 25 ms`);
}

const pause = (seconds) => page.waitForTimeout(seconds * 1_000);
await noting("at rest", () => pause(2));
await noting(`${CHARTS} charts come up`, async () => {
    await page.getByRole("button", { name: `All ${CHARTS} metrics` }).click();
    await page.waitForFunction((charts) => document.querySelectorAll("canvas").length === charts, CHARTS);
    await pause(1);
});
const chart = page.locator(".u-over").first();
await chart.scrollIntoViewIfNeeded();
const box = await chart.boundingBox();
await noting("the mouse moves over them", async () => {
    for (let step = 0; step < 240; step++) await page.mouse.move(box.x + (step % 80) * (box.width / 80), box.y + 40 + (step % 7));
});
await noting("somebody looks closer", async () => {
    await page.mouse.move(box.x + 60, box.y + 40);
    await page.mouse.down();
    for (let step = 0; step < 30; step++) await page.mouse.move(box.x + 60 + step * 4, box.y + 45);
    await page.mouse.up();
    await pause(1);
    await page.mouse.dblclick(box.x + 90, box.y + 45);
    await pause(1);
});
await noting("new points come in, once a second", async () => {
    for (let change = 0; change < 5; change++) {
        minutes++;
        const order = change % 2 === 0 ? "pause" : "resume";
        await fetch(`${base}/api/v1/packs/${PACK}/rollout/${order}`, {
            method: "POST",
            headers: { "content-type": "application/json", "x-serin-actor": "tester" },
            body: JSON.stringify({ reason: "so that something changes" }),
        });
        await pause(1);
    }
});
await close(page);
await browser.close();
endAll();
process.exit(0);
