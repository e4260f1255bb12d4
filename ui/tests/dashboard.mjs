// The dashboard in a real browser, on real servers with a stand-in provider and real traffic.
//
// `make test` runs it through crates/cli/tests/dashboard.rs. By hand:
// SERIN_BIN=target/debug/serin node ui/tests/dashboard.mjs [part of a test's name or its file's name]

import assert from "node:assert/strict";

import { browser, broken, errors } from "./browser.mjs";
import { endAll } from "./server.mjs";

/** Each file starts the servers that its tests need. */
const FILES = ["demo", "conversations", "explain", "watch", "keys", "scale"];
const wanted = process.argv[2] ?? "";

let failed = 0;
try {
    const isFile = FILES.includes(wanted);
    for (const file of isFile ? [wanted] : FILES) {
        const { tests } = await import(`./${file}.mjs`);
        for (const [name, test] of Object.entries(tests)) {
            if (!isFile && !name.includes(wanted)) continue;
            const started = Date.now();
            try {
                await test();
                assert.deepEqual(broken.splice(0), []);
                console.log(`ok ${name} (${((Date.now() - started) / 1_000).toFixed(1)} s)`);
            } catch (error) {
                failed++;
                broken.length = 0;
                errors.areExpected = false;
                console.log(`FAILED ${name}\n${error.stack}`);
            }
        }
    }
} finally {
    await browser.close();
    endAll();
}
process.exit(failed === 0 ? 0 : 1);
