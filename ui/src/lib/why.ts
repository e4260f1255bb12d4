// "Why is it not moving?" — or what comes next, when it is.

import type { RolloutView } from "../api/schema";
import { counted, duration, percent, relative } from "./format";

export interface Why {
    tone: "good" | "warn" | "bad" | "busy" | "calm";
    title: string;
    lines: string[];
}

/** What an on-call engineer wants to know first about a rollout. */
export function why(rollout: RolloutView, now: number): Why {
    const { end, progress, stable, canary } = rollout;
    if (end) return ended(rollout, now);
    if (rollout.forced) {
        return {
            tone: "bad",
            title: `Everything is forced to stable ${stable}`,
            lines: ["Somebody put the break-glass file into the data directory. The rollout waits until it is gone."],
        };
    }
    if (!progress) return { tone: "calm", title: "Under way", lines: [] };
    const lines: string[] = [];
    if (progress.failed_checks > 0) {
        lines.push(
            `${progress.failed_checks} of ${progress.failure_threshold} failed checks in a row: at ${progress.failure_threshold} it rolls back by itself, whatever hold is set.`,
        );
    }
    const goal = goalOf(rollout);
    if (rollout.holds.length > 0) {
        return {
            tone: progress.failed_checks > 0 ? "bad" : "warn",
            title: `On hold at ${currentOf(rollout)}: ${rollout.holds.map((hold) => hold.shown).join(", ")}`,
            lines: [...lines, `When the hold is over, ${goal} comes next. Time on hold does not count.`],
        };
    }
    const at = progress.next.at ? Date.parse(progress.next.at) : undefined;
    if (progress.approval && !progress.approved) lines.push("The step ends only after a person approves.");
    const seen = counted(progress.step_sessions, "matured canary session");
    if (at !== undefined && at > now) {
        lines.push(`It goes on if no gate is failing or at risk by then and the step has enough sessions: ${seen} so far.`);
        return {
            tone: progress.failed_checks > 0 ? "bad" : "busy",
            title: `Moving: ${goal} ${relative(at, now)} at the earliest`,
            lines,
        };
    }
    lines.push(`The step's time has passed; the next check (${relative(Date.parse(progress.next_check_at), now)}) decides. ${seen} in this step.`);
    return { tone: progress.failed_checks > 0 ? "bad" : "busy", title: `Due: ${goal}`, lines };
}

/** What comes after the step. */
function goalOf({ progress, canary, steps, segments }: RolloutView): string {
    const next = progress?.next.step;
    if (next === undefined || next === null) return `${canary} becomes stable`;
    const weight = percent(progress?.next.weight ?? 0);
    const last = segments?.at(-1)?.name;
    if (last === undefined) return `${weight} of new sessions`;
    // While earlier segments have weights of their own, no single number says who gets the canary.
    const shown = steps[next]?.shown ?? weight;
    return shown === weight ? `${weight} of new sessions of ${last}` : shown;
}

/** Who gets the canary now. */
function currentOf({ progress, steps, segments, weight }: RolloutView): string {
    const shown = (segments ?? []).length > 0 && progress ? steps[progress.step]?.shown : undefined;
    return shown ?? percent(weight);
}

function ended({ kind, end, stable, canary, started_at, exposure, watch }: RolloutView, now: number): Why {
    if (!end) return { tone: "calm", title: "", lines: [] };
    const when = relative(Date.parse(end.at), now);
    const took = duration(Date.parse(end.at) - Date.parse(started_at));
    switch (end.how) {
        case "completed":
            if (kind === "undo") {
                const lines = [`${end.reason} (${end.actor})`, `${stable} does not come back by itself: only retry starts it again.`];
                return { tone: "bad", title: `Undone ${when}: everyone is on ${canary} again`, lines };
            }
            return {
                tone: watch?.state === "breached" ? "bad" : "good",
                title: `Completed ${when}: ${canary} is stable${watch?.state === "breached" ? ", and breaks a gate" : ""}`,
                lines: [`It took ${took}. ${end.reason} (${end.actor})`],
            };
        case "superseded":
            return {
                tone: "calm",
                title: `Superseded ${when} by ${end.superseded_by ?? "another version"}`,
                lines: [end.reason],
            };
        case "rolled back by failed checks":
        case "rolled back by order":
        case "rolled back by applying stable again": {
            const named = end.culprits.length > 0 ? [`Named: ${end.culprits.join(", ")}.`] : [];
            return {
                tone: "bad",
                title: `Rolled back ${when}: everyone is on ${stable}`,
                lines: [
                    `${end.reason} (${end.actor})`,
                    ...named,
                    `${counted(exposure.sessions, "session")} saw ${canary} within ${took}.`,
                ],
            };
        }
    }
}
