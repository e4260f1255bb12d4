// A whole demo with its traffic, and what people do to rollouts.

import assert from "node:assert/strict";
import { join } from "node:path";

import { button, close, errors, faultsEverywhere, open, read, seen } from "./browser.mjs";
import { api, folder, freePort, publish, serin, stop } from "./server.mjs";

/** How long a rollout of the demo may take. */
const ROLLOUT = 150_000;
const HOSTILE = `<img src=x onerror="document.title='owned'"><script>document.title="owned"</script>{{`;

const [port, dataPort] = [await freePort(), await freePort()];
const base = `http://127.0.0.1:${port}`;
let server = await serin(
    ["demo", "--keep", "--data-dir", join(folder, "data"), "--port", String(port), "--data-port", String(dataPort)],
    "watch it in a browser",
);

/** The entry of the audit log for what happened last to a rollout. */
async function entry(rollout, action) {
    const { entries } = await api(base, `/audit?order=newest&rollout=${rollout}&action=${action}`);
    return entries[0];
}

/** How long after its commit something is seen, in milliseconds; the page is already there. */
async function seenAfterCommit(page, text, rollout, action) {
    await page.waitForFunction((text) => document.querySelector("#why")?.textContent?.includes(text), text, { timeout: ROLLOUT, polling: 20 });
    const at = Date.now();
    return at - Date.parse((await entry(rollout, action)).at);
}

/** Waits until every chart of a page has had its turn. */
const frames = (page) =>
    page.evaluate(async () => {
        for (let left = 2 * document.querySelectorAll("canvas").length + 2; left > 0; left--) await new Promise(requestAnimationFrame);
    });

export const tests = {
    async "a rollout is watched from its start to its completion"() {
        // The demo starts its rollout after a warm-up.
        for (;;) {
            const { rollouts } = await api(base, "/rollouts");
            if (rollouts.length > 0) break;
            await new Promise((done) => setTimeout(done, 100));
        }
        const page = await open(`${base}/rollouts/support-r1`);
        await page.waitForFunction(() => /Moving|Due/.test(document.querySelector("#why")?.textContent ?? ""), undefined, { timeout: ROLLOUT });
        const before = await page.evaluate(() => performance.timeOrigin);
        const late = await seenAfterCommit(page, "Completed", "support-r1", "completed");
        assert.ok(late < 2_000, `the completion is seen ${late} ms after its commit`);
        assert.equal(await page.evaluate(() => performance.timeOrigin), before, "the page was not loaded again");
        await close(page);
    },

    async "an automatic rollback appears within two seconds of its commit"() {
        const page = await open(`${base}/packs/support`);
        const late = await seenAfterCommit(page, "Rolled back", "support-r2", "rolled_back");
        assert.ok(late < 2_000, `the rollback is seen ${late} ms after its commit`);
        await seen(page, "Rolled back by failed checks");
        await page.getByRole("meter", { name: /Evidence that/ }).first().waitFor();
        await page.locator("canvas").nth(2).waitFor();
        await page.getByText("Numbers of success_rate").click();
        assert.ok((await page.getByRole("region", { name: "Numbers of success_rate" }).getByRole("row").count()) > 2);
        await close(page);
    },

    async "charts look closer where the mouse was dragged, all together, and show everything again"() {
        while (!(await entry("support-r2", "rolled_back"))) await new Promise((done) => setTimeout(done, 500));
        const page = await open(`${base}/rollouts/support-r2`);
        await read(page);
        await page.locator(".u-over").nth(1).waitFor();
        await page.locator("figure").first().scrollIntoViewIfNeeded();
        const box = await page.locator(".u-over").first().boundingBox();
        const at = (part) => [box.x + box.width * part, box.y + box.height / 2];
        /** The times that two charts show when the mouse is at a part of the first. */
        const times = async (part) => {
            await page.mouse.move(...at(part));
            const readouts = page.locator("figure .readout .muted");
            await readouts.nth(1).waitFor();
            return [await readouts.first().textContent(), await readouts.nth(1).textContent()];
        };
        const [whole, other] = await times(0.1);
        assert.equal(whole, other, "charts have one cursor");
        await page.mouse.move(...at(0.5));
        await page.mouse.down();
        await page.mouse.move(...at(0.7));
        await page.mouse.up();
        await page.waitForFunction(() => document.querySelector(".u-select").offsetWidth === 0);
        await frames(page);
        const [closer, alike] = await times(0.1);
        assert.ok(closer > whole, `${closer} is later than ${whole}`);
        assert.equal(closer, alike, "all charts look closer");
        await page.mouse.dblclick(...at(0.5));
        await frames(page);
        assert.deepEqual(await times(0.1), [whole, whole]);
        await close(page);
    },

    async "a rollout is paused and rolled back by mouse"() {
        await publish(base, { pack: "mouse", version: "1.0.0", text: "One." });
        await publish(base, { pack: "mouse", version: "1.1.0", text: "Two." });
        const page = await open(`${base}/`);
        await page.getByRole("link", { name: "mouse", exact: true }).click();
        await button(page, "Pause…").click();
        const confirm = page.getByRole("dialog").getByRole("button", { name: "Pause", exact: true });
        assert.ok(await confirm.isDisabled(), "an order without a reason is not given");
        await seen(page, "Checks go on. A failing check still rolls back.");
        await page.getByRole("textbox", { name: /^Reason/ }).fill("let me look");
        await confirm.click();
        await seen(page, "mouse is paused at 10%");
        await page.waitForFunction(() => document.querySelector("#why")?.textContent?.includes("On hold"));
        await seen(page, "let me look");

        await button(page, "Roll back…").first().click();
        await seen(page, /Moves the 0 sessions that have 1.1.0 now/);
        await button(page, "Metrics look wrong").click();
        // However often somebody clicks, it is sent once.
        let sent = 0;
        page.on("request", (request) => (sent += request.method() === "POST" && request.url().endsWith("/rollback") ? 1 : 0));
        await button(page, "Roll back now").dblclick();
        await page.waitForFunction(() => document.querySelector("#why")?.textContent?.includes("Rolled back"));
        assert.equal(sent, 1);
        assert.equal((await entry("mouse-r1", "rolled_back")).reason, "Metrics look wrong");
        await close(page);
    },

    async "a rollout is paused, resumed and rolled back by keyboard alone"() {
        await publish(base, { pack: "keyboard", version: "1.0.0", text: "One." });
        await publish(base, { pack: "keyboard", version: "1.1.0", text: "Two." });
        const page = await open(`${base}/packs/keyboard`);
        await button(page, "Pause…").waitFor();
        for (const [key, reason, shown] of [
            ["Alt+p", "by key", "On hold"],
            ["Alt+p", "go on", "Moving"],
            ["Alt+r", "back", "Rolled back"],
        ]) {
            await page.keyboard.press(key);
            await page.getByRole("dialog").waitFor();
            await page.waitForFunction(() => !document.querySelector("dialog")?.textContent?.includes("Reading what"));
            await page.keyboard.type(reason);
            await page.keyboard.press("Enter");
            await page.waitForFunction((shown) => document.querySelector("#why")?.textContent?.includes(shown), shown);
        }
        // Letters alone do nothing.
        await page.keyboard.press("r");
        await page.keyboard.press("p");
        assert.equal(await page.getByRole("dialog").count(), 0);
        await close(page);
    },

    async "a rollout is promoted by a step, rolled back, retried and promoted fully"() {
        await publish(base, { pack: "ladder", version: "1.0.0", text: "One." });
        await publish(base, { pack: "ladder", version: "1.1.0", text: "Two." });
        const page = await open(`${base}/packs/ladder`);
        for (const [name, will, confirm, shown] of [
            ["Promote a step…", /10% → 10% of new sessions get 1\.1\.0, now\./, "Promote a step", "Moving: 40%"],
            ["Promote a step…", /10% → 40% of new sessions get 1\.1\.0, now\./, "Promote a step", "Moving: 70%"],
            ["Roll back…", /From now on every new session gets 1\.0\.0\./, "Roll back now", "Rolled back"],
            ["Retry…", /A new rollout of 1\.1\.0 starts at its first step/, "Start a new rollout", "Moving: 10%"],
            ["Promote fully…", /Every new session gets 1\.1\.0, now and for good/, "Make it stable for everyone", "Completed"],
        ]) {
            await button(page, name).first().click();
            const dialog = page.getByRole("dialog");
            await dialog.getByText(will).waitFor();
            await dialog.getByRole("textbox", { name: /^Reason/ }).fill(`so that ${confirm}`);
            await dialog.getByRole("button", { name: confirm, exact: true }).click();
            await page.waitForFunction((shown) => document.querySelector("#why")?.textContent?.includes(shown), shown);
        }
        const { entries } = await api(base, "/audit?order=newest&rollout=ladder-r2&action=completed");
        assert.equal(entries[0].reason, "so that Make it stable for everyone");
        await close(page);
    },

    async "the key for rolling back asks which rollout, when the page shows several"() {
        for (const pack of ["first", "second"]) {
            await publish(base, { pack, version: "1.0.0", text: "One." });
            await publish(base, { pack, version: "1.1.0", text: "Two." });
        }
        const page = await open(`${base}/oncall`);
        await page.getByRole("link", { name: "second", exact: true }).waitFor();
        await page.keyboard.press("Alt+r");
        await page.getByRole("dialog").getByRole("button", { name: /second/ }).click();
        await page.getByRole("heading", { name: "Roll back second" }).waitFor();
        await page.keyboard.press("Escape");
        assert.equal((await api(base, "/packs/second")).rollout.end, null, "nothing was done");
        await close(page);
    },

    async "a refusal is shown plainly and the dialog stays"() {
        await publish(base, { pack: "refused", version: "1.0.0", text: "One." });
        await publish(base, { pack: "refused", version: "1.1.0", text: "Two." });
        const page = await open(`${base}/packs/refused`);
        await button(page, "Pause…").click();
        await seen(page, "Checks go on. A failing check still rolls back.");
        await page.getByRole("textbox", { name: /^Reason/ }).fill("late");
        await api(base, "/packs/refused/rollout/rollback", { method: "POST", body: { reason: "somebody was first" } });
        // The browser itself reports that the answer was a refusal.
        errors.areExpected = true;
        await page.keyboard.press("Enter");
        await page.getByRole("dialog").getByRole("alert").waitFor();
        errors.areExpected = false;
        await close(page);
    },

    async "two versions are compared word by word, and hostile text is text"() {
        await publish(base, { pack: "hostile", version: "1.0.0", text: "Answer kindly and briefly." });
        await publish(base, { pack: "hostile", version: "1.1.0-x.onerror", text: `Answer kindly ${HOSTILE.slice(0, -2)} and briefly.`, temperature: 0.9, owner: HOSTILE });
        await api(base, "/packs/hostile/rollout/pause", { method: "POST", body: { reason: HOSTILE }, headers: { "x-serin-actor": "<b>eve</b>" } });
        const page = await open(`${base}/packs/hostile/versions`);
        await button(page, "Show the difference").click();
        await page.getByRole("heading", { name: "Parameters", exact: true }).waitFor();
        const changed = await page.getByRole("region", { name: "Parameters" }).locator("del, ins").allTextContents();
        assert.deepEqual(changed, ["[removed: 0.5]", "[added: 0.9]"], "nobody reads a part of a number");
        const [put] = await page.locator("article ins").allTextContents();
        assert.ok(put.includes("<img src=x onerror="), put);
        assert.ok((await page.locator("article").first().textContent()).includes("Answer kindly"));
        for (const path of ["/", "/packs/hostile", "/packs/hostile/versions", "/oncall", "/audit?pack=hostile"]) {
            await page.goto(base + path);
            await page.getByText("onerror").first().waitFor();
            await read(page);
            assert.equal(await page.locator("main img, main script, main b").count(), 0, path);
            assert.ok(!(await page.title()).includes("owned"), path);
        }
        await close(page);
    },

    async "the audit log is filtered, shows its evidence, and its chain is verified"() {
        const page = await open(`${base}/audit`);
        await seen(page, /Chain verified: \d+ entries/);
        await page.getByRole("combobox", { name: "Pack" }).selectOption("support");
        await page.getByRole("combobox", { name: "Action" }).selectOption("rolled_back");
        await page.waitForFunction(() => document.querySelectorAll("main ol > li").length === 1);
        await page.getByText("Evidence").click();
        await seen(page, /log_e/);
        assert.ok(page.url().includes("pack=support"), "the view can be linked to");
        await close(page);
    },

    async "the server is lost and regained without a reload"() {
        const page = await open(`${base}/packs/first`);
        await seen(page, "Live");
        const before = await page.evaluate(() => performance.timeOrigin);
        errors.areExpected = true;
        await stop(server);
        await seen(page, "Server lost");
        assert.ok(await page.getByRole("heading", { name: "first", exact: true }).isVisible(), "what was read stays on the page");
        server = await serin(
            ["serve", "--data-dir", join(folder, "data"), "--control-listen", `127.0.0.1:${port}`, "--listen", "127.0.0.1:0", "--provider", "http://127.0.0.1:9"],
            "data folder",
            { SERIN_CONTROL_OPEN: "true" },
        );
        await seen(page, "Live");
        errors.areExpected = false;
        await api(base, "/packs/first/rollout/pause", { method: "POST", body: { reason: "after the restart" } });
        await seen(page, "after the restart");
        assert.equal(await page.evaluate(() => performance.timeOrigin), before, "the page was not loaded again");
        await close(page);
    },

    async "every page keeps the rules of accessibility in both colour schemes, wide and narrow"() {
        const pages = ["/", "/packs/support", "/packs/first", "/rollouts/support-r1", "/packs/support/versions", "/packs/support/diff?from=1.0.0&to=2.0.0", "/packs/support/conversations", "/audit", "/oncall", "/nowhere"];
        const page = await open(`${base}/`);
        for (const path of pages) {
            await page.goto(base + path);
            await read(page);
            assert.deepEqual(await faultsEverywhere(page), [], path);
        }
        await close(page);
    },
};
