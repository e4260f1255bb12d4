// The time of the server, once a second: what counts up and down on the page reads it here.

import { clock } from "../api/client";

class Now {
    #at = $state(Date.now());

    /** Milliseconds since 1970 by the server's clock. */
    get ms(): number {
        return this.#at + clock.offset;
    }

    /** Ticks until the returned function is called. */
    start(): () => void {
        const timer = setInterval(() => (this.#at = Date.now()), 1_000);
        return () => clearInterval(timer);
    }
}

export const now = new Now();
