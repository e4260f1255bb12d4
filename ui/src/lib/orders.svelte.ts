// Orders to rollouts: one dialog for the whole page, opened from a button or by a key.

import type { Order } from "./session.svelte";

export interface Asked {
    order: Order;
    pack: string;
}

/** A rollout under way that a page shows, for the keys. */
export interface Shown {
    pack: string;
    canary: string;
}

class Orders {
    /** The order that the dialog asks about. */
    asked: Asked | undefined = $state.raw(undefined);
    /** The packs among which somebody chooses one to roll back. */
    choice: Shown[] | undefined = $state.raw(undefined);
    /** What was done last, for everyone to read. */
    told: { text: string; tone: "good" | "warn" } | undefined = $state.raw(undefined);
    /** Rollouts under way on the page at hand. */
    shown: Shown[] = $state.raw([]);

    #timer: ReturnType<typeof setTimeout> | undefined;

    ask(order: Order, pack: string) {
        this.choice = undefined;
        this.asked = { order, pack };
    }

    tell(text: string, tone: "good" | "warn" = "good") {
        this.told = { text, tone };
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => (this.told = undefined), 10_000);
    }

    /** The key for an order: asks about the one rollout at hand, or lets choose among several. */
    byKey(order: "rollback" | "pause") {
        const [only, ...others] = this.shown;
        if (only === undefined) {
            this.tell("There is no active rollout on this page", "warn");
        } else if (others.length === 0) {
            this.ask(order, only.pack);
        } else if (order === "rollback") {
            this.choice = this.shown;
        } else {
            this.tell("Several rollouts are active: choose one first", "warn");
        }
    }
}

export const orders = new Orders();
