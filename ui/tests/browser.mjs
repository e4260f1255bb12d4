// A browser that notes whatever a page must not do.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { chromium } from "playwright-core";

const AXE = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"];
/** A folder whose files stand in for the dashboard within the program: what was changed is seen without building it. */
const DIST = process.env.SERIN_UI;
/** How long anything may take that needs no rollout to go on. */
export const SOON = 15_000;

export const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

/** Whatever a page must not do: errors in its console, requests to other hosts. */
export const broken = [];
/** Refusals and lost servers are errors to the browser's console: expected while this is on. */
export const errors = { areExpected: false };

/** Does something during which the browser itself reports refused or failed requests. */
export async function expectingErrors(does) {
    errors.areExpected = true;
    const result = await does();
    errors.areExpected = false;
    return result;
}

/** Answers with a file of the folder: the one that was asked for, else the page. */
async function fromFolder(route) {
    const { pathname } = new URL(route.request().url());
    const file = join(DIST, pathname);
    if (pathname !== "/" && existsSync(file)) return route.fulfill({ path: file });
    const response = await route.fetch();
    const isPage = response.headers()["content-type"]?.startsWith("text/html");
    return route.fulfill(isPage && !pathname.startsWith("/link/") ? { response, path: join(DIST, "index.html") } : { response });
}

/** Opens a page of the dashboard at an address. */
export async function open(address, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
    context.setDefaultTimeout(SOON);
    if (DIST) await context.route(({ pathname }) => !pathname.startsWith("/api/"), fromFolder);
    const page = await context.newPage();
    page.on("console", (message) => {
        if (message.type() === "error" && !errors.areExpected) broken.push(`console on ${page.url()}: ${message.text()}`);
    });
    page.on("pageerror", (error) => broken.push(`script on ${page.url()}: ${error.stack}`));
    page.on("request", (request) => {
        const { protocol, hostname } = new URL(request.url());
        if (protocol !== "data:" && hostname !== "127.0.0.1") broken.push(`request to ${request.url()}`);
    });
    await page.goto(address);
    return page;
}

export const close = (page) => page.context().close();
export const button = (page, name) => page.getByRole("button", { name });
export const seen = (page, text, timeout = SOON) => page.getByText(text).first().waitFor({ timeout });

/** Waits until a page shows what it asked for. */
export async function read(page) {
    await page.locator("h1").waitFor();
    await page.waitForFunction(() => !document.querySelector(".skeleton"));
}

/** What a page as it stands breaks of the rules of accessibility, and whether it is wider than its window. */
export async function faults(page) {
    if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(AXE);
    const { violations } = await page.evaluate((runOnly) => globalThis.axe.run(document, { runOnly }), RULES);
    const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
    const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    return wider > 0 ? [...told, `${wider} px wider than its window`] : told;
}

/** The same in both colour schemes, wide and narrow. */
export async function faultsEverywhere(page) {
    const found = [];
    for (const width of [1280, 390]) {
        await page.setViewportSize({ width, height: 800 });
        for (const colorScheme of ["light", "dark"]) {
            await page.emulateMedia({ colorScheme });
            found.push(...(await faults(page)).map((fault) => `${colorScheme}, ${width} px: ${fault}`));
        }
    }
    return found;
}
