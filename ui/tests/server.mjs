// The real program, as the tests run it.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";

const BINARY = process.env.SERIN_BIN;
const running = new Set();

/** A port that is free at this moment. */
export async function freePort() {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address();
    server.close();
    await once(server, "close");
    return port;
}

/** Starts `serin` and returns once a line of its output fits. */
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
    return child;
}

/** Asks a process to stop and waits until it has. */
export async function stop(child) {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGINT");
    await once(child, "exit");
}

/** Whatever is left when the tests are over. */
export function killAll() {
    for (const child of running) child.kill("SIGKILL");
}

/** Asks the API; the answer as JSON. */
export async function api(base, path, { method = "GET", body, headers = {} } = {}) {
    const response = await fetch(`${base}/api/v1${path}`, {
        method,
        headers: { "x-serin-actor": "tester", ...headers },
        body: typeof body === "string" || body === undefined ? body : JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.json();
}

/** Applies a version of a pack with one prompt; its rollout stays at the first step until somebody moves it. */
export async function publish(base, { pack, version, text, temperature = 0.5, owner = "support-team", headers = {} }) {
    const manifest = {
        apiVersion: "omnia.altairalabs.ai/v1alpha1",
        kind: "PromptPack",
        metadata: { name: pack, owner },
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
            },
        },
    };
    return api(base, `/packs?reason=${encodeURIComponent(`publishes ${version}`)}`, { method: "PUT", body: JSON.stringify(manifest), headers });
}
