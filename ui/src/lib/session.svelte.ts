// Who sits here, and what the key allows.

import { get, onUnauthorized, post, remove } from "../api/client";
import type { Permission, WhoamiView } from "../api/schema";

/** What may be ordered of a rollout; a name of a permission each. */
export type Order = Extract<Permission, "pause" | "resume" | "approve" | "promote" | "promote_full" | "rollback" | "retry">;

class Session {
    who: WhoamiView | undefined = $state.raw(undefined);
    /** Whether the server wants a key first. */
    isLockedOut = $state(false);

    constructor() {
        onUnauthorized.call = () => {
            this.who = undefined;
            this.isLockedOut = true;
        };
    }

    /** Asks the server who we are to it; a server without keys is open to whoever reaches it. */
    async read() {
        try {
            this.who = await get("/api/v1/whoami");
            this.isLockedOut = false;
        } catch {
            // Locked out, which is known by now; or there is no server, which every reading on the page says.
        }
    }

    /** Why an order is not for us; nothing when it is. */
    refusal(order: Order, pack: string): string | undefined {
        const who = this.who;
        if (who === undefined) return undefined;
        const isPerson = who.source === "person";
        if (!who.may.includes(order)) return `The role ${who.role} of ${isPerson ? "" : "key "}${who.name} does not allow this`;
        if (who.packs && !who.packs.includes(pack)) return `${isPerson ? "" : "Key "}${who.name} is not for the pack ${pack}`;
        return undefined;
    }

    async signIn(key: string) {
        this.who = await post("/api/v1/session", {}, { key });
        this.isLockedOut = false;
    }

    async signOut() {
        await remove("/api/v1/session");
        this.who = undefined;
        this.isLockedOut = true;
    }
}

export const session = new Session();
