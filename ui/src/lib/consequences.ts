// What an order will do, in sentences, before it is given.

import type { PackDetail, SessionsView } from "../api/schema";
import { counted, percent, relative } from "./format";
import type { Order } from "./session.svelte";

export interface OrderWords {
    /** On the button that opens the dialog. */
    label: string;
    /** On top of the dialog. */
    title: (pack: string) => string;
    /** On the button that does it. */
    confirm: string;
    /** Reasons that are often meant. */
    reasons: string[];
    isDangerous: boolean;
}

export const ORDERS: Record<Order, OrderWords> = {
    rollback: {
        label: "Roll back",
        title: (pack) => `Roll back ${pack}`,
        confirm: "Roll back now",
        reasons: ["Users report bad answers", "Metrics look wrong", "As a precaution"],
        isDangerous: true,
    },
    pause: {
        label: "Pause",
        title: (pack) => `Pause ${pack}`,
        confirm: "Pause",
        reasons: ["Taking a look", "Incident elsewhere"],
        isDangerous: false,
    },
    resume: {
        label: "Resume",
        title: (pack) => `Resume ${pack}`,
        confirm: "Resume",
        reasons: ["Looked at it: fine", "Incident is over"],
        isDangerous: false,
    },
    approve: {
        label: "Approve",
        title: (pack) => `Approve the next step of ${pack}`,
        confirm: "Approve",
        reasons: ["Reviewed the answers", "Agreed with the team"],
        isDangerous: false,
    },
    promote: {
        label: "Promote a step",
        title: (pack) => `Promote ${pack} by one step`,
        confirm: "Promote a step",
        reasons: ["Evidence is good enough", "The hold is understood"],
        isDangerous: false,
    },
    promote_full: {
        label: "Promote fully",
        title: (pack) => `Promote ${pack} to everyone`,
        confirm: "Make it stable for everyone",
        reasons: ["Evidence is good enough", "Urgent fix"],
        isDangerous: true,
    },
    retry: {
        label: "Retry",
        title: (pack) => `Try the version of ${pack} again`,
        confirm: "Start a new rollout",
        reasons: ["The cause was elsewhere", "The provider is well again"],
        isDangerous: false,
    },
};

/** What an order will do to a pack as it stands, one sentence each; `sessions` are those under way now. */
export function consequences(order: Order, detail: PackDetail, sessions: SessionsView, now: number): string[] {
    const rollout = detail.rollout ?? undefined;
    if (rollout === undefined) return [];
    const { stable, canary, weight, progress, exposure } = rollout;
    const having = (version: string) =>
        counted(sessions.versions.find((one) => one.version === version)?.sessions ?? 0, "session");
    const passesHolds = rollout.holds.length > 0 ? "Every hold is passed over, and that is recorded." : undefined;
    const lines: (string | undefined)[] = [];
    switch (order) {
        case "rollback":
            if (rollout.end?.how === "completed") {
                const back = detail.history.at(-1) ?? stable;
                lines.push(
                    `Everyone gets ${back} again at once; ${detail.stable} stops being stable.`,
                    `Moves the ${having(canary)} that have ${canary} now.`,
                    "It is recorded as a rollout of its own; the completed one stays as it is.",
                );
            } else {
                lines.push(
                    `From now on every new session gets ${stable}.`,
                    `Moves the ${having(canary)} that have ${canary} now, each with its next message, unless the manifest says to drain them. ${counted(exposure.sessions, "session")} saw it so far.`,
                    "It is in force before it is recorded. Only retry starts the version again.",
                );
            }
            break;
        case "pause":
            lines.push(
                `New sessions go on as now: ${percent(weight)} of them get ${canary}. No session moves.`,
                "Checks go on. A failing check still rolls back.",
            );
            break;
        case "resume":
            lines.push(`Goes on from ${percent(weight)} of new sessions. No session moves.`, otherHolds(detail));
            break;
        case "approve":
            lines.push(
                progress ? `The next step, ${percent(progress.next.weight)} of new sessions, may begin.` : undefined,
                progress?.next.at ? `At the earliest ${relative(Date.parse(progress.next.at), now)}.` : undefined,
            );
            break;
        case "promote":
            if (progress?.next.step === undefined || progress.next.step === null) {
                lines.push(`${canary} becomes stable for everyone: this was the last step.`);
            } else {
                lines.push(
                    `${percent(weight)} → ${percent(progress.next.weight)} of new sessions get ${canary}, now.`,
                    perHour(detail, progress.next.weight - weight),
                    `The ${having(stable)} on ${stable} keep it.`,
                );
            }
            lines.push(passesHolds);
            break;
        case "promote_full":
            lines.push(
                `Every new session gets ${canary}, now and for good. ${percent(100 - weight)} of them still get ${stable} at this moment.`,
                perHour(detail, 100 - weight),
                `The ${having(stable)} on ${stable} end as the manifest says: they drain, or move.`,
                passesHolds,
            );
            break;
        case "retry":
            lines.push(
                `A new rollout of ${canary} starts at its first step, with new evidence.`,
                "What was seen so far does not count.",
            );
            break;
    }
    return lines.filter((line) => line !== undefined);
}

function otherHolds(detail: PackDetail): string | undefined {
    const others = (detail.rollout?.holds ?? []).filter((hold) => hold.cause !== "paused");
    if (others.length === 0) return undefined;
    return `It stays on hold all the same: ${others.map((hold) => hold.shown).join(", ")}.`;
}

function perHour(detail: PackDetail, more: number): string | undefined {
    const rate = detail.sessions_per_second;
    if (!rate || more <= 0) return undefined;
    const sessions = Math.round((rate * 3_600 * more) / 100);
    return `That is about ${counted(sessions, "new session")} more an hour at the traffic of the last hour.`;
}
