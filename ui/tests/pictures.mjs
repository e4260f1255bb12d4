// Takes the pictures in docs/ and in the README anew, from the program as it is; with Debian's fonts-inter they look as
// the committed ones do:
//
//   SERIN_BIN=target/debug/serin node ui/tests/pictures.mjs [part of a picture's name]

import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { browser, button, close, open, read } from "./browser.mjs";
import { endAll } from "./server.mjs";
import { stage } from "./stage.mjs";

/** No picture has more bytes. */
const MOST_BYTES = 200_000;
const WIDE = { width: 1280, height: 860 };
const NARROW = { width: 390, height: 844 };

const wanted = process.argv[2] ?? "";
const { base, end } = await stage();

/** Scrolls so that something stands below the bar. */
const to = (name) => (page) => page.evaluate((name) => scrollTo(0, document.querySelector(`[aria-labelledby=${name}]`).offsetTop - 70), name);

const PICTURES = [
    ["overview", "/", { viewport: WIDE, colorScheme: "dark" }],
    ["oncall", "/oncall", { viewport: WIDE, colorScheme: "light" }],
    ["rollout", "/packs/support-prompts", { viewport: { ...WIDE, height: 980 }, colorScheme: "light" }],
    ["rolled-back", "/packs/billing-answers", { viewport: WIDE, colorScheme: "dark" }],
    ["charts", "/packs/checkout-assistant", { viewport: { ...WIDE, height: 620 }, colorScheme: "light" }, to("charts")],
    ["segments", "/packs/travel-concierge", { viewport: { ...WIDE, height: 640 }, colorScheme: "dark" }, to("segments")],
    ["conversations", "/packs/checkout-assistant/conversations", { viewport: WIDE, colorScheme: "light" }],
    ["diff", "/packs/support-prompts/diff?from=2.3.1&to=2.4.0", { viewport: { ...WIDE, height: 640 }, colorScheme: "dark" }],
    [
        "order",
        "/packs/checkout-assistant",
        { viewport: { ...WIDE, height: 700 }, colorScheme: "light" },
        async (page) => {
            await button(page, "Roll back…").click();
            await page.waitForFunction(() => !document.querySelector("dialog")?.textContent?.includes("Reading what"));
        },
    ],
    ["narrow", "/packs/checkout-assistant", { viewport: NARROW, colorScheme: "dark" }],
];

for (const [name, path, options, then] of PICTURES) {
    if (!name.includes(wanted)) continue;
    const page = await open(base + path, { ...options, reducedMotion: "reduce" });
    await read(page);
    await page.waitForTimeout(800);
    await then?.(page);
    await page.waitForTimeout(200);
    const file = fileURLToPath(new URL(`../../docs/pictures/dashboard-${name}.png`, import.meta.url));
    await page.screenshot({ path: file, animations: "disabled" });
    const { size } = statSync(file);
    console.log(`${file}: ${size} bytes`);
    assert.ok(size <= MOST_BYTES, "too large for a picture in the documentation");
    await close(page);
}
end();
await browser.close();
endAll();
process.exit(0);
