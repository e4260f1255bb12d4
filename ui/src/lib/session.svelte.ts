// Who sits here, and what the key allows.

import { Problem, get, onUnauthorized, post, remove } from "../api/client";
import type { Gets } from "../api/schema";

/** An order to a rollout, or applying a manifest. */
export type May = "apply" | "pause" | "resume" | "approve" | "promote" | "promote_full" | "rollback" | "retry";

export interface Whoami {
    name: string;
    role: string;
    packs?: string[] | null;
    source: "key" | "session" | "open";
    may: string[];
}

/** Where the browser remembers that somebody signed in here; who, the server knows. */
const SIGNED_IN = "serin-signed-in";

function hasSignedIn(): boolean {
    try {
        return localStorage.getItem(SIGNED_IN) !== null;
    } catch {
        return false;
    }
}

class Session {
    who: Whoami | undefined = $state.raw(undefined);
    /** Whether the server wants a key first. */
    isLockedOut = $state(false);

    constructor() {
        onUnauthorized.call = () => {
            this.isLockedOut = true;
        };
    }

    /** Asks the server who we are to it; a browser that never signed in is nobody in particular. */
    async read() {
        if (!hasSignedIn()) return;
        try {
            this.who = (await get("/api/v1/whoami" as keyof Gets)) as unknown as Whoami;
            this.isLockedOut = false;
        } catch (cause) {
            // A server without keys is open to whoever reaches it.
            if (cause instanceof Problem && cause.status === 404) this.who = undefined;
        }
    }

    /** Why an order is not for us; nothing when it is. */
    refusal(order: May, pack: string): string | undefined {
        const who = this.who;
        if (who === undefined) return undefined;
        if (!who.may.includes(order)) return `The role ${who.role} of key ${who.name} does not allow this`;
        if (who.packs && !who.packs.includes(pack)) return `Key ${who.name} is not for the pack ${pack}`;
        return undefined;
    }

    async signIn(key: string) {
        await post("/api/v1/session" as never, {}, { key });
        localStorage.setItem(SIGNED_IN, "yes");
        await this.read();
    }

    async signOut() {
        await remove("/api/v1/session" as never);
        localStorage.removeItem(SIGNED_IN);
        this.who = undefined;
        this.isLockedOut = true;
    }
}

export const session = new Session();
