// The stream of changes: one connection for the whole page, which comes back by itself.

import type { StreamEvent } from "../api/schema";

/** What a listener is told: the pack that changed, or that anything may have. */
export type Change = { pack: string; actions: string[] } | "everything";

type Listener = (change: Change) => void;

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5_000;

class Live {
    /** How the connection stands. */
    state: "connecting" | "live" | "lost" = $state("connecting");
    /** Since when it is lost, in milliseconds since 1970. */
    lostSince: number | undefined = $state(undefined);

    #listeners = new Set<Listener>();
    #source: EventSource | undefined;
    #wait = FIRST_WAIT_MS;
    #timer: ReturnType<typeof setTimeout> | undefined;
    #wasLive = false;

    /** Opens the stream. */
    start() {
        this.stop();
        const source = new EventSource("/api/v1/stream");
        this.#source = source;
        source.onopen = () => {
            this.#wait = FIRST_WAIT_MS;
            this.state = "live";
            this.lostSince = undefined;
            // Whatever happened while nobody listened is read now.
            if (this.#wasLive) this.#tell("everything");
            this.#wasLive = true;
        };
        source.onerror = () => this.#again();
        source.addEventListener("change", (event) => {
            const { pack, actions } = JSON.parse(event.data) as StreamEvent;
            this.#tell({ pack, actions });
        });
        source.addEventListener("missed", () => this.#tell("everything"));
    }

    /** Closes the stream. */
    stop() {
        clearTimeout(this.#timer);
        this.#source?.close();
        this.#source = undefined;
    }

    /** Calls back on each change until the returned function is called. */
    listen(listener: Listener): () => void {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
    }

    #tell(change: Change) {
        for (const listener of this.#listeners) listener(change);
    }

    #again() {
        this.stop();
        if (this.state !== "lost") {
            this.state = "lost";
            this.lostSince = Date.now();
        }
        this.#timer = setTimeout(() => this.start(), this.#wait);
        this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
    }
}

export const live = new Live();
