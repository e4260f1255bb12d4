// Nothing is seen or changed without a key, and no more than a key allows.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { button, close, expectingErrors, faultsEverywhere, open, read, seen } from "./browser.mjs";
import { api, folder, freePort, publish, serin } from "./server.mjs";

const port = await freePort();
export const base = `http://127.0.0.1:${port}`;
await serin(
    ["serve", "--data-dir", join(folder, "guarded"), "--control-listen", `127.0.0.1:${port}`, "--listen", "127.0.0.1:0", "--provider", "http://127.0.0.1:9"],
    "data folder",
);
const admin = readFileSync(join(folder, "guarded", "admin.key"), "utf8").trim();
const headers = { authorization: `Bearer ${admin}` };
for (const pack of ["guarded", "other"]) {
    await publish(base, { pack, version: "1.0.0", text: "One.", headers });
    await publish(base, { pack, version: "1.1.0", text: "Two.", headers });
}

/** Makes a key. */
async function made(name, role, more = {}) {
    const { key } = await api(base, "/keys", { method: "POST", body: { name, role, ...more }, headers });
    return key;
}

/** Opens a page and signs in with a key on the way. */
async function signedIn(key, path, options) {
    const page = await expectingErrors(async () => {
        const page = await open(base + path, options);
        await page.getByRole("heading", { name: "Sign in" }).waitFor();
        return page;
    });
    await page.getByLabel("Key", { exact: true }).fill(key);
    await page.getByRole("button", { name: "Sign in" }).click();
    await button(page, "Sign out").waitFor();
    await read(page);
    return page;
}

/** How the page's own script is answered when it orders something. */
const ordered = (page, pack, order) =>
    page.evaluate(
        async ([pack, order]) => {
            const response = await fetch(`/api/v1/packs/${pack}/rollout/${order}`, {
                method: "POST",
                headers: { "content-type": "application/json" },
                body: JSON.stringify({ reason: "mine" }),
            });
            return response.status;
        },
        [pack, order],
    );
const rollout = async (pack) => (await api(base, `/packs/${pack}`, { headers })).rollout;

export const tests = {
    async "no change without a key (bug 17)"() {
        await expectingErrors(async () => {
            for (const path of ["/", "/packs/guarded", "/packs/guarded/versions", "/packs/guarded/conversations", "/oncall", "/audit"]) {
                const page = await open(base + path);
                await page.getByRole("heading", { name: "Sign in" }).waitFor();
                await page.waitForLoadState("networkidle");
                const shown = await page.locator("body").textContent();
                assert.ok(!/1\.1\.0|Roll back|support-team/.test(shown), `${path} shows nothing: ${shown}`);
                await page.keyboard.press("Alt+r");
                assert.equal(await page.getByRole("dialog").count(), 0, "no key orders anything");
                for (const order of ["pause", "promote", "rollback"]) assert.equal(await ordered(page, "guarded", order), 401);
                await close(page);
            }
            const page = await open(`${base}/`);
            await page.getByLabel("Key", { exact: true }).fill("serin_of-somebody-else");
            await page.getByRole("button", { name: "Sign in" }).click();
            await seen(page, "the key is not known here");
            assert.equal(await ordered(page, "guarded", "rollback"), 401, "a wrong key changes nothing");
            assert.equal(await page.getByLabel("Key", { exact: true }).inputValue(), "", "the key is not kept on the page");
            await close(page);
        });
        const left = await rollout("guarded");
        assert.equal(left.end, null, "nothing was done");
        assert.deepEqual(left.holds, [], "nothing was done");
    },

    async "a viewer sees everything but prompts, and every order refuses plainly"() {
        const page = await signedIn(await made("watcher", "viewer"), "/packs/guarded");
        await seen(page, "watcher");
        for (const name of ["Pause…", "Promote a step…", "Promote fully…", "Roll back…"]) {
            const one = page.getByRole("button", { name });
            assert.ok(await one.isDisabled(), name);
            assert.match(await one.textContent(), /role viewer of key watcher does not allow this/);
        }
        // The key for it opens the dialog, which says why not.
        await page.keyboard.press("Alt+r");
        await seen(page, "The role viewer of key watcher does not allow this.");
        await page.keyboard.type("let me");
        assert.ok(await page.getByRole("dialog").getByRole("button", { name: "Roll back now" }).isDisabled());
        await page.keyboard.press("Escape");
        await expectingErrors(async () => {
            assert.equal(await ordered(page, "guarded", "rollback"), 403, "nor does the server take it");
            await page.goto(`${base}/packs/guarded/diff?from=1.0.0&to=1.1.0`);
            await seen(page, /made with --read-prompts/);
            await page.goto(`${base}/packs/guarded/conversations`);
            await seen(page, /made with --read-prompts/);
        });
        assert.equal((await rollout("guarded")).end, null, "nothing was done");
        await close(page);
    },

    async "an operator for one pack orders that pack and no other"() {
        const key = await made("night-shift", "operator", { packs: ["guarded"] });
        const page = await signedIn(key, "/packs/guarded");
        await button(page, "Pause…").click();
        await page.getByRole("textbox", { name: /^Reason/ }).fill("let me look");
        await page.getByRole("dialog").getByRole("button", { name: "Pause", exact: true }).click();
        await page.waitForFunction(() => document.querySelector("#why")?.textContent?.includes("On hold"));
        const { entries } = await api(base, "/audit?pack=guarded&action=hold_set&order=newest", { headers });
        assert.match(entries[0].actor, /night-shift/, "the audit log names the key");
        await expectingErrors(async () => {
            assert.equal(await ordered(page, "other", "pause"), 403);
            await page.goto(`${base}/`);
            await read(page);
            assert.equal(await page.getByRole("link", { name: "other", exact: true }).count(), 0, "other packs are not shown");
            await page.goto(`${base}/packs/other`);
            await seen(page, /night-shift/);
            await page.getByRole("alert").first().waitFor();
        });
        await close(page);
    },

    async "a session is a cookie that no script reads, and ends with signing out"() {
        const page = await signedIn(admin, "/packs/guarded");
        assert.equal(await page.evaluate(() => document.cookie), "", "scripts do not see it");
        const kept = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }));
        assert.ok(!kept.includes("serin_"), "nor is the key kept anywhere else");
        await page.reload();
        await button(page, "Sign out").waitFor();
        const [cookie] = await page.context().cookies();
        await expectingErrors(async () => {
            await button(page, "Sign out").click();
            await page.getByRole("heading", { name: "Sign in" }).waitFor();
            assert.equal((await page.context().cookies()).length, 0);
            await page.context().addCookies([cookie]);
            await page.reload();
            await page.getByRole("heading", { name: "Sign in" }).waitFor();
        });
        await close(page);
    },

    async "a key that is revoked or expired ends what it began, on the page that is open"() {
        const page = await signedIn(await made("leaver", "operator"), "/packs/other");
        await expectingErrors(async () => {
            await api(base, "/keys/leaver?reason=left", { method: "DELETE", headers });
            await page.getByRole("heading", { name: "Sign in" }).waitFor();
            assert.equal(await page.getByText("1.1.0").count(), 0, "what was shown is gone");
            await page.getByLabel("Key", { exact: true }).fill(await made("short", "viewer", { expires_in: "1ms" }));
            await page.getByRole("button", { name: "Sign in" }).click();
            await seen(page, /The key was good until/);
        });
        await close(page);
    },

    async "a server that records no conversation says so"() {
        const page = await signedIn(admin, "/packs/guarded/conversations");
        await page.getByRole("heading", { name: "No conversation is being recorded" }).waitFor();
        await close(page);
    },

    async "the sign-in page keeps the rules of accessibility in both colour schemes, wide and narrow"() {
        await expectingErrors(async () => {
            const page = await open(`${base}/`);
            await page.getByRole("heading", { name: "Sign in" }).waitFor();
            assert.deepEqual(await faultsEverywhere(page), []);
            await close(page);
        });
    },
};
