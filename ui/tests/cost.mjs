// What open dashboards cost the server: SERIN_BIN=target/debug/serin node ui/tests/cost.mjs [DASHBOARDS]
//
// Each keeps the stream open and asks as the page of a rollout does, while users talk to its pack. Printed is the
// share of a core that the server takes with and without them.

import { readFileSync } from "node:fs";

import { api, endAll, publish, say, serving } from "./server.mjs";

const DASHBOARDS = Number(process.argv[2] ?? 50);
const SECONDS = 15;
/** New sessions in a second. */
const TRAFFIC = 10;
const PACK = "watched";

const { base, gateway, server } = await serving("cost", { default: { replies: ["Yes."] } });
const rollout = { analysis: { interval: "5s", metrics: [{ name: "success_rate", threshold: "90%", comparison: ">=" }] } };
await publish(base, { pack: PACK, version: "1.0.0", text: "One." });
await publish(base, { pack: PACK, version: "1.1.0", text: "Two.", rollout });

/** Seconds of a core that the server has taken so far. */
function taken() {
    const fields = readFileSync(`/proc/${server.pid}/stat`, "utf8").split(") ")[1].split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
}

let session = 0;
const users = setInterval(() => void say(gateway, { pack: PACK, session: `user-${session++}`, text: "Hello" }), 1_000 / TRAFFIC);
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1_000));

async function measured(what) {
    const before = taken();
    await pause(SECONDS);
    const share = ((taken() - before) / SECONDS) * 100;
    console.log(`${what}: ${share.toFixed(1)}% of a core`);
    return share;
}

let requests = 0;
/** Asks as RolloutBody.svelte does: all of it after a change, the pack every two seconds. */
async function dashboard() {
    const get = async (path) => {
        requests++;
        await api(base, path, { headers: { "cache-control": "max-age=1" } });
    };
    const id = `${PACK}-r1`;
    const whole = () => Promise.all([`/packs/${PACK}`, `/rollouts?pack=${PACK}&limit=20`, `/rollouts/${id}/series?after=${new Date().toISOString()}`, `/rollouts/${id}/timeline`, `/rollouts/${id}/checks?limit=15`].map(get));
    await whole();
    setInterval(() => void get(`/packs/${PACK}`), 2_000);
    const stream = await fetch(`${base}/api/v1/stream`);
    for await (const chunk of stream.body) {
        if (new TextDecoder().decode(chunk).includes("event: change")) await whole();
    }
}

await pause(3);
const alone = await measured("without dashboards");
for (let number = 0; number < DASHBOARDS; number++) void dashboard();
await pause(3);
requests = 0;
const together = await measured(`with ${DASHBOARDS} dashboards`);
console.log(`the dashboards cost ${(together - alone).toFixed(1)}% of a core, ${(requests / SECONDS).toFixed(0)} requests a second`);
clearInterval(users);
endAll();
process.exit(0);
