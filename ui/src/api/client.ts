// Talks to the API, and to nothing else.

import type { Deletes, Gets, Posts, ProblemDetails } from "./schema";

/** What the API refused, in the words of RFC 9457; status 0 when no answer came at all. */
export class Problem extends Error {
    constructor(
        readonly status: number,
        readonly title: string,
        readonly detail: string | undefined,
        readonly hint: string | undefined,
    ) {
        super(detail ?? title);
    }

    /** Whether the server could not be reached, so that trying again helps. */
    get isUnreachable(): boolean {
        return this.status === 0;
    }
}

/** Values that go into the path or behind the question mark. */
export type Params = Record<string, string | number | boolean | undefined>;

/** How old an answer may be that the server has at hand, in seconds: so that many dashboards cost little. */
const FRESH_ENOUGH = 1;
/** How long an answer may take. */
const PATIENCE_MS = 15_000;

/** The time of the server less the time here, in milliseconds. */
export const clock = { offset: 0 };

/** What to do when the server asks who we are. */
export const onUnauthorized: { call: () => void } = { call: () => {} };

function address(path: string, params: Params): string {
    const left = new URLSearchParams();
    let filled = path;
    for (const [name, value] of Object.entries(params)) {
        if (value === undefined || value === "") continue;
        const place = `{${name}}`;
        if (filled.includes(place)) filled = filled.replace(place, encodeURIComponent(value));
        else left.set(name, String(value));
    }
    const query = left.toString();
    return query === "" ? filled : `${filled}?${query}`;
}

async function send(method: string, url: string, body?: unknown, stop?: AbortSignal): Promise<unknown> {
    const headers: Record<string, string> = { accept: "application/json" };
    if (method === "GET") headers["cache-control"] = `max-age=${FRESH_ENOUGH}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    const patience = AbortSignal.timeout(PATIENCE_MS);
    const request: RequestInit = {
        method,
        headers,
        credentials: "same-origin",
        cache: "no-store",
        signal: stop === undefined ? patience : AbortSignal.any([stop, patience]),
    };
    if (body !== undefined) request.body = JSON.stringify(body);
    let response: Response;
    try {
        response = await fetch(url, request);
    } catch (cause) {
        if (stop?.aborted) throw cause;
        throw new Problem(0, "The server does not answer", undefined, "it is asked again by itself");
    }
    const text = await response.text();
    let json: unknown;
    try {
        json = text === "" ? undefined : JSON.parse(text);
    } catch {
        json = undefined;
    }
    if (response.ok) {
        noteTime(json);
        return json;
    }
    if (response.status === 401) onUnauthorized.call();
    const problem = (json ?? {}) as Partial<ProblemDetails>;
    throw new Problem(
        response.status,
        problem.title ?? `The server answered ${response.status}`,
        problem.detail ?? undefined,
        problem.hint ?? undefined,
    );
}

/** Many answers tell when they were made. */
function noteTime(json: unknown) {
    if (typeof json !== "object" || json === null || !("as_of" in json)) return;
    const made = Date.parse(String(json.as_of));
    if (!Number.isNaN(made)) clock.offset = made - Date.now();
}

/** Reads. */
export async function get<P extends keyof Gets>(
    path: P,
    params: Params = {},
    stop?: AbortSignal,
): Promise<Gets[P]> {
    return (await send("GET", address(path, params), undefined, stop)) as Gets[P];
}

/** Changes something. */
export async function post<P extends keyof Posts>(
    path: P,
    params: Params,
    body: unknown,
): Promise<Posts[P]> {
    return (await send("POST", address(path, params), body)) as Posts[P];
}

/** Takes something away. */
export async function remove<P extends keyof Deletes>(path: P, params: Params = {}): Promise<Deletes[P]> {
    return (await send("DELETE", address(path, params))) as Deletes[P];
}
