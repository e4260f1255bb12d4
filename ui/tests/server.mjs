// The real program, as the tests run it.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const BINARY = process.env.SERIN_BIN;
const running = new Set();

/** Where the tests keep everything; gone when they are over. */
export const folder = mkdtempSync(join(tmpdir(), "serin-dashboard-"));

/** A port that is free at this moment. */
export async function freePort() {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address();
    server.close();
    await once(server, "close");
    return port;
}

/** Starts `serin` and returns once a line of its output has the words of `ready`; `said` is what it wrote by then. */
export async function serin(args, ready, env = {}) {
    const child = spawn(BINARY, args, {
        env: { PATH: process.env.PATH, NO_COLOR: "1", ...env },
        stdio: ["ignore", "pipe", "pipe"],
    });
    running.add(child);
    child.once("exit", () => running.delete(child));
    let said = "";
    child.stderr.on("data", (text) => (said += text));
    await new Promise((done, failed) => {
        createInterface({ input: child.stdout }).on("line", (line) => {
            said += `${line}\n`;
            if (line.includes(ready)) done();
        });
        child.once("exit", (code) => failed(new Error(`serin ${args[0]} ended with ${code}:\n${said}`)));
    });
    child.said = said;
    return child;
}

/** Asks a process to stop and waits until it has. */
export async function stop(child) {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGINT");
    await once(child, "exit");
}

/** Ends whatever is left when the tests are over. */
export function endAll() {
    for (const child of running) child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
}

/** Asks the API; the answer as JSON. */
export async function api(base, path, { method = "GET", body, headers = {} } = {}) {
    const response = await fetch(`${base}/api/v1${path}`, {
        method,
        headers: { "x-serin-actor": "tester", ...headers },
        body: typeof body === "string" || body === undefined ? body : JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.status === 204 ? undefined : response.json();
}

/**
 * A server with a provider behind it, which answers by a script; where its API and its gateway are. It asks for no key.
 * What the settings file says is an object.
 */
export async function serving(name, script, env = {}, settings = {}) {
    const file = join(folder, `${name}.provider.json`);
    writeFileSync(file, JSON.stringify(script));
    const provider = await serin(["provider", "--script", file, "--listen", "127.0.0.1:0"], "counters");
    const [port, dataPort] = [await freePort(), await freePort()];
    const settingsFile = join(folder, `${name}.settings.json`);
    writeFileSync(settingsFile, JSON.stringify(settings));
    const upstream = /http:\/\/[\d.:]+/.exec(provider.said)[0];
    const server = await serin(
        ["serve", "--settings", settingsFile, "--data-dir", join(folder, name), "--control-listen", `127.0.0.1:${port}`, "--listen", `127.0.0.1:${dataPort}`, "--provider", upstream],
        "data folder",
        { SERIN_CONTROL_OPEN: "true", ...env },
    );
    return { base: `http://127.0.0.1:${port}`, gateway: `http://127.0.0.1:${dataPort}`, server };
}

/** Says something to a pack as a user of a session, and returns what came back. */
export async function say(gateway, { pack, session, text, attributes = {} }) {
    const response = await fetch(`${gateway}/v1/chat/completions`, {
        method: "POST",
        headers: {
            "content-type": "application/json",
            authorization: "Bearer sk-test",
            "x-serin-session": session,
            "x-serin-attributes": JSON.stringify(attributes),
        },
        body: JSON.stringify({ model: "stand-in", prompt: { id: `${pack}/answer` }, messages: [{ role: "user", content: text }] }),
    });
    const { id } = JSON.parse((await response.text()) || "{}");
    return { id, variant: response.headers.get("x-serin-variant"), version: response.headers.get("x-serin-version") };
}

/** Reports what became of a session. */
export async function report(gateway, { pack, session, name, value }) {
    const event = { id: `${session}-${name}`, pack, session, name, value };
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${gateway}/v1/events`, { method: "POST", headers, body: JSON.stringify({ events: [event] }) });
    const answer = await response.json();
    if (answer.accepted !== 1) throw new Error(`${name} of ${session}: ${JSON.stringify(answer)}`);
}

/** Applies a version of a pack with one prompt; its rollout stays at the first step until somebody moves it. */
export async function publish(base, { pack, version, text, temperature = 0.5, owner = "support-team", metadata = {}, rollout = {}, headers = {} }) {
    const manifest = {
        apiVersion: "omnia.altairalabs.ai/v1alpha1",
        kind: "PromptPack",
        metadata: { name: pack, owner, ...metadata },
        spec: {
            version,
            source: {
                inline: {
                    id: pack,
                    name: pack,
                    version,
                    template_engine: { version: "v1", syntax: "{{variable}}" },
                    prompts: {
                        answer: { id: "answer", name: "Answer", version, system_template: text, parameters: { temperature } },
                    },
                },
            },
            rollout: {
                canaryWeight: 10,
                stepWeight: 30,
                stepInterval: "1h",
                analysis: { metrics: [{ name: "success_rate", threshold: "90%", comparison: ">=" }] },
                ...rollout,
            },
        },
    };
    return api(base, `/packs?reason=${encodeURIComponent(`publishes ${version}`)}`, { method: "PUT", body: JSON.stringify(manifest), headers });
}
