// Something read from the API that is kept current: after a change, from time to time, and once the
// server is back. What was read stays on the page while it is read anew.

import { Problem } from "../api/client";
import { live, type Change } from "./live.svelte";

/** When a resource is read anew. */
export interface Freshness<T> {
    /** Which changes concern it, given what was read last; every change when absent. */
    concerns?: (change: { pack: string; actions: string[] }, value: T | undefined) => boolean;
    /** How long to wait before it is read without a change, in milliseconds, given what was read last. */
    every?: (value: T | undefined) => number | undefined;
}

/** Changes that come together are answered by one reading. */
const TOGETHER_MS = 120;
/** How soon a failed reading is tried again. */
const AGAIN_MS = 2_000;

export class Resource<T> {
    /** What was read last; absent before the first answer. */
    value: T | undefined = $state.raw(undefined);
    /** Why the last reading failed. */
    problem: Problem | undefined = $state.raw(undefined);
    /** Whether the first answer is still awaited. */
    isLoading = $derived(this.value === undefined && this.problem === undefined);

    #read: (stop: AbortSignal) => Promise<T>;
    #freshness: Freshness<T>;
    #stop = new AbortController();
    #timer: ReturnType<typeof setTimeout> | undefined;
    #isReading = false;
    #isStale = false;

    constructor(read: (stop: AbortSignal) => Promise<T>, freshness: Freshness<T> = {}) {
        this.#read = read;
        this.#freshness = freshness;
    }

    /** Begins to keep it current; the returned function ends that. */
    keep(): () => void {
        this.#stop = new AbortController();
        const deaf = live.listen((change) => this.#heard(change));
        const seen = () => document.visibilityState === "visible" && this.refresh();
        document.addEventListener("visibilitychange", seen);
        this.refresh();
        return () => {
            deaf();
            document.removeEventListener("visibilitychange", seen);
            clearTimeout(this.#timer);
            this.#stop.abort();
        };
    }

    /** Reads it anew, at once or right after the reading under way. */
    refresh() {
        this.#isStale = true;
        if (!this.#isReading) void this.#readNow();
    }

    #heard(change: Change) {
        const concerns = this.#freshness.concerns;
        if (change !== "everything" && concerns !== undefined && !concerns(change, this.value)) return;
        this.#in(TOGETHER_MS);
    }

    #in(milliseconds: number) {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.refresh(), milliseconds);
    }

    async #readNow() {
        const stop = this.#stop.signal;
        this.#isReading = true;
        try {
            while (this.#isStale && !stop.aborted) {
                this.#isStale = false;
                this.value = await this.#read(stop);
                this.problem = undefined;
            }
        } catch (cause) {
            if (!stop.aborted) this.problem = cause instanceof Problem ? cause : new Problem(-1, String(cause), undefined, undefined);
        } finally {
            this.#isReading = false;
        }
        if (stop.aborted) {
            // It may be kept anew by now, with a reading that was asked for while this one was under way.
            if (this.#isStale && !this.#stop.signal.aborted) void this.#readNow();
            return;
        }
        const wait = this.problem?.isUnreachable ? AGAIN_MS : this.#freshness.every?.(this.value);
        // A page that nobody sees reads nothing; it catches up when it is seen again.
        if (wait !== undefined && document.visibilityState === "visible") this.#in(wait);
    }
}

/** A resource that lives as long as the component which asks for it; call it while that is set up. */
export function kept<T>(read: (stop: AbortSignal) => Promise<T>, freshness: Freshness<NoInfer<T>> = {}): Resource<T> {
    const resource = new Resource(read, freshness);
    $effect(() => resource.keep());
    return resource;
}
