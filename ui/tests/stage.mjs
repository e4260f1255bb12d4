// A server with something of everything to look at: rollouts in each state, real traffic, recorded conversations.
//
// It is what look.mjs and pictures.mjs take pictures of. Nothing here is judged; the tests bring what they need.

import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

import { api, folder, freePort, publish, report, say, serin, serving } from "./server.mjs";

const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1_000));
/** Waits until something holds; what it gave. */
async function until(what, holds, seconds = 120) {
    for (let left = seconds * 4; left > 0; left--) {
        const found = await holds();
        if (found) return found;
        await pause(0.25);
    }
    throw new Error(`not within ${seconds} s: ${what}`);
}

/** How good a version is, by words of its prompt. */
const BEHAVIOURS = {
    "Name the next step": {
        latency_ms: { median: 46, p99: 170 },
        replies: [
            "I started your refund just now. It reaches your account in three working days, and you get a mail as soon as it is booked.",
            "Open the link that I sent you and choose a new password. It works for an hour.",
            "Your parcel is in Hanover and arrives tomorrow before noon. I can move it to another day: tell me which one.",
        ],
        failure_rate: 0.01,
        output_tokens: { median: 40, p99: 90 },
    },
    "Think of every possibility": {
        latency_ms: { median: 95, p99: 900 },
        replies: [
            "There are several possible reasons for what you describe. It may be the account, the order, or something that I cannot see from here.",
            "Such matters depend on a number of factors, which differ from case to case. Our documentation covers them in several places.",
        ],
        refusal_rate: 0.22,
        truncate_rate: 0.06,
        failure_rate: 0.02,
        output_tokens: { median: 90, p99: 300 },
    },
    "Answer in one word": { latency_ms: { median: 30, p99: 90 }, replies: ["Yes.", "Perhaps."], failure_rate: 0.45, failure: { status: 503 } },
    "Use the new catalogue": { latency_ms: { median: 60, p99: 240 }, replies: ["The walnut table is in stock in two sizes: 140 and 180 cm."], failure_rate: 0.03 },
};
const SCRIPT = {
    seed: 7,
    rules: [
        { when: { user_contains: "during the outage" }, behaviour: { replies: ["-"], failure_rate: 0.7, failure: { status: 503 } } },
        ...Object.entries(BEHAVIOURS).map(([words, behaviour]) => ({ when: { system_contains: words }, behaviour })),
    ],
    default: {
        latency_ms: { median: 58, p99: 260 },
        replies: [
            "Thank you for writing! I am sorry about the trouble. Please have a look at your order page, where you can ask for a refund.",
            "Thanks for reaching out! You can set a new password from the sign-in page.",
            "I am happy to help! Could you tell me the number of your order?",
        ],
        refusal_rate: 0.01,
        failure_rate: 0.02,
        output_tokens: { median: 40, p99: 90 },
    },
};
const QUESTIONS = [
    "Where is my order? It was promised for Monday.",
    "I want my money back. Write to ana.lima@customers.example when it is done.",
    "How do I set a new password?",
    "The table came with a scratch. What now?",
    "Can I talk to a person? My number is +49 30 901820.",
];

const STABLE = "You are a warm support agent for Acme. Apologise for the trouble, and send people to the page that helps them.";
const BETTER = "You are a warm support agent for Acme. Name the next step in your first sentence, and take it yourself where you can.";
const WORSE = "You are a support agent for Acme. Think of every possibility at length before you answer.";
const BROKEN = "Answer in one word.";
const CATALOGUE = "You find products for people who shop at Acme. Use the new catalogue, and name two products at most.";

const SUCCESS = { name: "success_rate", threshold: "85%", comparison: ">=", minSamples: 20, maturity: "1s" };
const LATENCY = { name: "latency_p95", threshold: "3s", comparison: "<=", minSamples: 20, maturity: "1s" };
const COMPLETION = { name: "task_completion_rate", compareTo: "stable", maxRegression: "5pp", minSamples: 20, maturity: "1s" };
const SATISFACTION = { name: "user_satisfaction_avg", threshold: "3", comparison: ">=", minSamples: 20, maturity: "1s" };
const RAMP = [
    { weight: "10%", hold: "5s" },
    { weight: "25%", hold: "1h" },
    { weight: "50%", hold: "1h" },
    { weight: "100%", hold: "30m" },
];
const ramp = (metrics, more = {}) => ({
    canaryWeight: undefined,
    stepWeight: undefined,
    stepInterval: undefined,
    steps: RAMP,
    analysis: { interval: "2s", failureThreshold: 3, onDegraded: "notify", metrics },
    ...more,
});

/** Every pack with a rollout: both versions, and how much its users talk. */
const PACKS = [
    {
        pack: "support-prompts",
        versions: ["2.3.1", "2.4.0"],
        texts: [STABLE, BETTER],
        metadata: { escalation: "#support-oncall", labels: { team: "support", tier: "1" } },
        rollout: ramp([SUCCESS, LATENCY, COMPLETION, SATISFACTION]),
        rate: 8,
    },
    {
        pack: "checkout-assistant",
        versions: ["1.8.0", "1.9.0"],
        texts: [STABLE, WORSE],
        metadata: { escalation: "#payments" },
        owner: "payments",
        rollout: ramp([], { analysis: { interval: "2s", failureThreshold: 5, metrics: [SUCCESS, { ...LATENCY, threshold: "700ms" }] } }),
        rate: 6,
    },
    { pack: "billing-answers", versions: ["3.0.2", "3.1.0"], texts: [STABLE, BROKEN], owner: "billing", rollout: ramp([SUCCESS, LATENCY]), rate: 5 },
    {
        pack: "search-answers",
        versions: ["4.1.0", "5.0.0"],
        texts: ["You find products for people who shop at Acme.", CATALOGUE],
        owner: "search",
        rollout: ramp([SUCCESS, LATENCY], { watch: { duration: "24h", onBreach: "rollback" } }),
        rate: 4,
    },
    {
        pack: "faq",
        versions: ["1.4.0", "1.5.0"],
        texts: [STABLE, BETTER],
        owner: "docs",
        rollout: ramp([SUCCESS], { watch: { duration: "24h" } }),
        rate: 4,
    },
    {
        pack: "travel-concierge",
        versions: ["7.2.0", "8.0.0-rc.1"],
        texts: [STABLE, BETTER],
        owner: "travel",
        rollout: {
            canaryWeight: 10,
            stepWeight: 20,
            stepInterval: "1h",
            segments: [
                { name: "staff", weight: "100%", duration: "5s", match: 'attributes.email.endsWith("@acme.example")' },
                { name: "beta_users", weight: "50%", duration: "1h", match: "attributes.beta == true" },
                { name: "everyone", weight: "progressive" },
            ],
            analysis: { interval: "2s", metrics: [SUCCESS, LATENCY, COMPLETION] },
        },
        attributes: (user) => (user % 3 === 0 ? { email: `user${user}@acme.example` } : user % 3 === 1 ? { email: "a@customers.example", beta: true } : {}),
        rate: 6,
    },
    {
        pack: "night-summaries",
        versions: ["0.9.0", "0.10.0"],
        texts: ["Summarise the day in five lines.", "Summarise the day in three lines, the numbers first."],
        owner: "analytics",
        rollout: {
            canaryWeight: 5,
            stepWeight: 25,
            stepInterval: "6h",
            schedule: [
                { window: "22:00-06:00 Europe/Berlin", canaryWeight: "30%" },
                { window: "06:00-07:00 Europe/Berlin", canaryWeight: "0%" },
            ],
            analysis: { interval: "2s", metrics: [SUCCESS] },
        },
        rate: 2,
    },
    {
        pack: "contract-review",
        versions: ["1.0.0", "1.1.0"],
        texts: ["Name the risks of a contract.", "Name the risks of a contract, the largest one first."],
        owner: "legal",
        metadata: { escalation: "legal-duty@acme.example" },
        rollout: ramp([SUCCESS], {
            steps: [{ weight: "20%", hold: "5s" }, { weight: "50%", hold: "5s", approval: true }, { weight: "100%", hold: "1h" }],
        }),
        rate: 4,
    },
    { pack: "release-notes", versions: ["2.0.0", "2.1.0"], texts: ["Write release notes.", "Write release notes for people."], owner: "docs", rollout: ramp([SUCCESS, SATISFACTION]), rate: 0 },
    {
        pack: "customer-success-emea-escalation-assistant-with-a-long-name",
        versions: ["11.0.0", "11.1.0-preview.20261124+build.7f3c9a1"],
        texts: [STABLE, BETTER],
        owner: "customer-success-europe-middle-east-africa",
        rollout: ramp([{ ...SUCCESS, maturity: "10m" }], { steps: [{ weight: "0.5%", hold: "1h" }, { weight: "50%", hold: "2h" }, { weight: "100%", hold: "1h" }] }),
        rate: 1,
    },
    { pack: "legal-intake", versions: ["1.2.0", "1.3.0"], texts: ["Take down the case.", "Take down the case, then ask what is missing."], owner: "legal", rollout: ramp([SUCCESS]), rate: 1 },
];
const QUIET = ["translator", "tone-checker", "onboarding", "moderation", "meeting-notes"];

/** The base of a server without any pack. */
export const empty = async () => (await serving("empty", SCRIPT)).base;

/** The base of a server that wants a key, and the key. */
export async function guarded() {
    const port = await freePort();
    await serin(
        ["serve", "--data-dir", join(folder, "guarded"), "--control-listen", `127.0.0.1:${port}`, "--listen", "127.0.0.1:0", "--provider", "http://127.0.0.1:9"],
        "data folder",
    );
    return { base: `http://127.0.0.1:${port}`, key: readFileSync(join(folder, "guarded", "admin.key"), "utf8").trim() };
}

/** Sets everything up; returns once every rollout stands where it should. */
export async function stage() {
    // A receiver of messages, for the link in them that rolls back from a phone.
    const links = new Map();
    const receiver = createServer(async (request, answer) => {
        let text = "";
        for await (const part of request) text += part;
        const { data } = JSON.parse(text);
        if (data?.rollbackLink) links.set(data.rollout, data.rollbackLink);
        answer.end();
    }).listen(0, "127.0.0.1");
    await once(receiver, "listening");

    const name = "stage";
    const { base, gateway } = await serving(
        name,
        SCRIPT,
        { SERIN_SAMPLES_RATE: "100%", WEBHOOK_KEY: `whsec_${Buffer.alloc(32, 7).toString("base64")}` },
        {
            control: { publicUrl: "https://serin.example.com" },
            notify: {
                receivers: [
                    { name: "phone", type: "webhook", url: `http://127.0.0.1:${receiver.address().port}/`, keyEnv: "WEBHOOK_KEY", allowInternal: true, minSeverity: "info" },
                ],
            },
        },
    );
    const order = (pack, word, reason, body = {}, actor = "ana") =>
        api(base, `/packs/${pack}/rollout/${word}`, { method: "POST", body: { reason, ...body }, headers: { "x-serin-actor": actor } });
    const standing = async (pack) => (await api(base, `/packs/${pack}`)).rollout;

    for (const pack of QUIET) await publish(base, { pack, version: "1.0.0", text: `You are ${pack}.` });
    for (const [pack, word, reason, body] of [
        ["tone-checker", "promote", "Agreed with the team", { full: true }],
        ["onboarding", "rollback", "Users report bad answers", {}],
        ["meeting-notes", "rollback", "As a precaution", {}],
    ]) {
        await publish(base, { pack, version: "1.1.0", text: `You are ${pack}, and kind.` });
        await order(pack, word, reason, body);
    }
    for (const { pack, versions, texts, metadata, owner = "support-team", rollout } of PACKS) {
        await publish(base, { pack, version: versions[0], text: texts[0], owner, metadata, headers: { "x-serin-actor": "ben" } });
        await publish(base, { pack, version: versions[1], text: texts[1], owner, metadata, rollout, temperature: 0.3, headers: { "x-serin-actor": "ana" } });
    }

    // Users talk from now on; one in two says how it went.
    let user = 0;
    const outage = new Set();
    const users = PACKS.filter(({ rate }) => rate > 0).map(({ pack, rate, attributes = () => ({}) }) =>
        setInterval(async () => {
            const session = `chat-${(user += 1)}`;
            const text = outage.has(pack) ? "Does it work during the outage?" : QUESTIONS[user % QUESTIONS.length];
            try {
                const { variant } = await say(gateway, { pack, session, text, attributes: attributes(user) });
                const isWell = Math.random() < (variant === "canary" ? 0.86 : 0.82);
                if (Math.random() < 0.8) await report(gateway, { pack, session, name: "task_completion", value: isWell ? 1 : 0 });
                if (Math.random() < 0.5) await report(gateway, { pack, session, name: "user_satisfaction", value: isWell ? 4 + (user % 2) : 2 + (user % 2) });
            } catch {
                // The provider breaks connections now and then.
            }
        }, 1_000 / rate),
    );

    const inStep = (pack, step) => async () => {
        const rollout = await standing(pack);
        return rollout.end || (rollout.progress?.step ?? 0) >= step;
    };
    for (const pack of ["support-prompts", "checkout-assistant", "search-answers", "faq"]) await until(`${pack} in a step`, inStep(pack, 1));
    await pause(8);
    await order("travel-concierge", "promote", "Observed long enough");
    await order("travel-concierge", "promote", "Staff are happy with it");
    await order("faq", "promote", "Reviewed the answers", { full: true });
    await order("search-answers", "promote", "Evidence is good enough", { full: true }, "cleo");
    await order("contract-review", "pause", "Waiting for the review of the terms by the legal department in Lisbon, which takes until Thursday", {}, "cleo");
    await until("billing-answers rolled back", async () => (await standing("billing-answers")).end);
    outage.add("faq");
    await until("faq's watch is breached", async () => (await standing("faq")).watch?.state === "breached");
    outage.delete("faq");
    mkdirSync(join(folder, name), { recursive: true });
    writeFileSync(join(folder, name, "force-stable"), "legal-intake\n");
    await until("legal-intake is forced", async () => (await api(base, "/packs/legal-intake")).forced);
    await until("checkout-assistant holds", async () => (await standing("checkout-assistant")).holds.length > 0);
    const signed = await until("a signed link", async () => links.get("support-prompts-r1"));
    return {
        base,
        gateway,
        link: signed.replace("https://serin.example.com", base),
        order,
        /** The users go; the server stays. */
        end() {
            users.forEach(clearInterval);
            receiver.close();
        },
    };
}
