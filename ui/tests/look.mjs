// Takes pictures of every page, in both colour schemes, wide and narrow, to be looked at:
//
//   SERIN_BIN=target/debug/serin node ui/tests/look.mjs FOLDER [part of a picture's name]
//
// With SERIN_UI=ui/dist it shows what was built there instead of what is within the program. With `--stay` it takes
// them again whenever a line comes in, of those whose name has the words of the line.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { browser, broken, button, close, errors, open, read } from "./browser.mjs";
import { endAll } from "./server.mjs";
import { empty, guarded, stage } from "./stage.mjs";

const [target, ...rest] = process.argv.slice(2);
const stays = rest.includes("--stay");
const wanted = rest.find((word) => word !== "--stay") ?? "";
if (target === undefined) throw new Error("say into which folder: node ui/tests/look.mjs FOLDER");
mkdirSync(target, { recursive: true });
errors.areExpected = true;

const { base, link, end } = await stage();
const bare = await empty();
const locked = await guarded();

const dialog = (name) => async (page) => {
    await button(page, name).first().click();
    await page.waitForFunction(() => !document.querySelector("dialog")?.textContent?.includes("Reading what"));
};
const openAll = async (page) => {
    for (const summary of await page.locator("section[aria-labelledby=checks] summary").all()) {
        await summary.click();
        break;
    }
    for (const summary of await page.locator("figure summary").all()) {
        await summary.click();
        break;
    }
    for (const summary of await page.locator("section[aria-labelledby=segments] summary").all()) await summary.click();
};
const LONG = "customer-success-emea-escalation-assistant-with-a-long-name";
/** No answer comes, or one that says that it failed. */
const unanswered = (page) => page.route("**/api/v1/**", () => {});
const failing = (page) => page.route("**/api/v1/{overview,packs,rollouts,audit,oncall}**", (route) => route.fulfill({ status: 500, contentType: "application/problem+json", body: JSON.stringify({ title: "Something went wrong here", detail: "could not read the overview from the store", hint: "the log of the server says more, under request 7f3c9a1" }) }));
const lost = (page) => page.route("**/api/v1/**", (route) => route.abort());

/** Every picture: its name, where it is taken, what is done before and after the page is there. */
const SHOTS = [
    ["overview", "/"],
    ["oncall", "/oncall"],
    ["audit", "/audit", { then: async (page) => page.getByRole("button", { name: /^.?Evidence/ }).first().click() }],
    ["audit-none", "/audit?pack=faq&action=forced_stable"],
    ["rollout-moving", "/packs/support-prompts", { then: openAll }],
    ["rollout-held", "/packs/checkout-assistant"],
    ["rollout-paused", "/packs/contract-review"],
    ["rollout-back", "/packs/billing-answers"],
    ["rollout-watched", "/packs/search-answers"],
    ["rollout-breached", "/packs/faq"],
    ["rollout-segments", "/packs/travel-concierge", { then: openAll }],
    ["rollout-schedule", "/packs/night-summaries"],
    ["rollout-no-data", "/packs/release-notes"],
    ["rollout-long", `/packs/${LONG}`],
    ["rollout-forced", "/packs/legal-intake"],
    ["rollout-none", "/packs/translator"],
    ["rollout-by-id", "/rollouts/billing-answers-r1"],
    ["versions", "/packs/search-answers/versions"],
    ["versions-long", `/packs/${LONG}/versions`],
    ["diff", "/packs/support-prompts/diff?from=2.3.1&to=2.4.0"],
    ["diff-same", "/packs/support-prompts/diff?from=2.4.0&to=2.4.0"],
    ["conversations", "/packs/checkout-assistant/conversations"],
    ["conversations-worst", "/packs/checkout-assistant/conversations?rollout=checkout-assistant-r1&worst=latency_p95"],
    ["conversations-none", "/packs/translator/conversations"],
    ["explain", "/packs/support-prompts/explain"],
    ["explain-session", "/packs/support-prompts/explain?session=chat-1042"],
    ["explain-segments", "/packs/travel-concierge/explain?session=chat-1042"],
    ["explain-unknown", "/packs/support-prompts/explain?response=chatcmpl-unknown"],
    ["dialog-pause", "/packs/support-prompts", { then: dialog("Pause…") }],
    ["dialog-promote", "/packs/support-prompts", { then: dialog("Promote a step…") }],
    ["dialog-full", "/packs/support-prompts", { then: dialog("Promote fully…") }],
    ["dialog-rollback", "/packs/support-prompts", { then: dialog("Roll back…") }],
    ["dialog-retry", "/packs/billing-answers", { then: dialog("Retry…") }],
    ["dialog-approve", "/packs/contract-review", { then: dialog(/Approve…|Resume…/) }],
    ["dialog-undo", "/packs/search-answers", { then: dialog("Undo…") }],
    ["dialog-which", "/", { then: async (page) => page.keyboard.press("Alt+r") }],
    ["dialog-keys", "/", { then: async (page) => page.keyboard.press("Alt+k") }],
    ["unknown-page", "/nowhere"],
    ["unknown-pack", "/packs/nobody"],
    ["unknown-rollout", "/rollouts/nobody-r1"],
    ["empty", "/", { from: bare }],
    ["empty-oncall", "/oncall", { from: bare }],
    ["empty-audit", "/audit", { from: bare }],
    ["loading", "/", { before: unanswered, loads: true }],
    ["loading-rollout", "/packs/support-prompts", { before: unanswered, loads: true }],
    ["failed", "/", { before: failing }],
    ["failed-rollout", "/packs/support-prompts", { before: failing }],
    ["lost", "/", { before: lost, loads: true }],
    ["sign-in", "/", { from: locked.base, loads: true }],
    ["sign-in-refused", "/", { from: locked.base, loads: true, then: async (page) => {
        await page.getByLabel("Key", { exact: true }).fill("serin_of-somebody-else");
        await button(page, "Sign in").click();
        await page.getByRole("alert").waitFor();
    } }],
    ["link", link.replace(base, "")],
    ["link-bad", "/link/not-ours"],
];
const SIZES = { wide: { width: 1440, height: 900 }, narrow: { width: 390, height: 844 } };

async function shot([name, path, { from = base, before, then, loads = false } = {}]) {
    for (const [size, viewport] of Object.entries(SIZES)) {
        for (const colorScheme of ["light", "dark"]) {
            const page = await open("about:blank", { viewport, colorScheme, reducedMotion: "reduce" });
            await before?.(page);
            await page.goto(from + path);
            await page.locator("h1").waitFor();
            if (loads) await page.waitForTimeout(600);
            else await read(page);
            await page.waitForTimeout(250);
            await then?.(page);
            await page.evaluate(() => scrollTo(0, 0));
            await page.waitForTimeout(150);
            await page.screenshot({ path: join(target, `${name}-${size}-${colorScheme}.png`), fullPage: !name.startsWith("dialog"), animations: "disabled" });
            const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
            if (wider > 0) console.log(`${name}, ${size}: ${wider} px wider than its window`);
            await close(page);
        }
    }
}

async function take(part) {
    for (const one of SHOTS) {
        if (!one[0].includes(part)) continue;
        try {
            await shot(one);
        } catch (error) {
            console.log(`${one[0]}: ${error.message.split("\n")[0]}`);
        }
    }
    for (const fault of broken.splice(0)) console.log(fault);
    console.log(`pictures are in ${target}`);
}

await take(wanted);
if (stays) for await (const line of createInterface({ input: process.stdin })) await take(line.trim());
end();
await browser.close();
endAll();
process.exit(0);
