// Every status is told three times: by its word, its colour and its shape.

import type {
    CheckOutcome,
    EndHow,
    GateState,
    MetricStatus,
    Phase,
    Verdict,
    WatchState,
} from "../api/schema";

export type Tone = "good" | "warn" | "bad" | "calm" | "busy";
export type Shape =
    | "check"
    | "cross"
    | "up"
    | "down"
    | "diamond"
    | "ring"
    | "dot"
    | "dash"
    | "back"
    | "pause"
    | "half"
    | "eye"
    | "skip"
    | "lock";

export interface Sign {
    word: string;
    tone: Tone;
    shape: Shape;
}

const sign = (word: string, tone: Tone, shape: Shape): Sign => ({ word, tone, shape });

const METRIC: Record<MetricStatus, Sign> = {
    Improved: sign("Improved", "good", "up"),
    OK: sign("OK", "good", "dot"),
    Watch: sign("Watch", "warn", "diamond"),
    Degraded: sign("Degraded", "bad", "down"),
    "No data": sign("No data", "calm", "ring"),
};
export const metricSign = (status: MetricStatus): Sign => METRIC[status];

const GATE: Record<GateState, Sign> = {
    pass: sign("pass", "good", "check"),
    "at risk": sign("at risk", "warn", "diamond"),
    fail: sign("fail", "bad", "cross"),
    "no data": sign("no data", "calm", "ring"),
    "not applicable": sign("not applicable", "calm", "dash"),
};
export const gateSign = (state: GateState): Sign => GATE[state];

const CHECK: Record<CheckOutcome | Verdict, Sign> = {
    observed: sign("observed", "calm", "eye"),
    pass: sign("pass", "good", "check"),
    "at risk": sign("at risk", "warn", "diamond"),
    "no data": sign("no data", "calm", "ring"),
    fail: sign("fail", "bad", "cross"),
    "stable fails too": sign("stable fails too", "warn", "diamond"),
};
export const checkSign = (outcome: CheckOutcome | Verdict): Sign => CHECK[outcome];

const PHASE: Record<Phase, Sign> = {
    Observing: sign("Observing", "busy", "eye"),
    Progressing: sign("Progressing", "busy", "half"),
    Completing: sign("Completing", "busy", "half"),
    Completed: sign("Completed", "good", "check"),
    RolledBack: sign("Rolled back", "bad", "back"),
    Superseded: sign("Superseded", "calm", "skip"),
};
export const phaseSign = (phase: Phase): Sign => PHASE[phase];

const END: Record<EndHow, Sign> = {
    completed: sign("Completed", "good", "check"),
    "rolled back by failed checks": sign("Rolled back by failed checks", "bad", "back"),
    "rolled back by order": sign("Rolled back by order", "bad", "back"),
    "rolled back by applying stable again": sign("Rolled back by applying stable again", "bad", "back"),
    superseded: sign("Superseded", "calm", "skip"),
};
export const endSign = (how: EndHow): Sign => END[how];

/** A hold, by its cause as shown. */
export const holdSign = (shown: string): Sign =>
    sign(shown, shown.endsWith("degraded") ? "bad" : "warn", "pause");

const ROLE: Record<string, Sign> = {
    stable: sign("stable", "good", "check"),
    canary: sign("canary", "busy", "half"),
    draining: sign("draining", "calm", "dash"),
    "rolled back": sign("rolled back", "bad", "back"),
    "earlier stable": sign("earlier stable", "calm", "dot"),
    published: sign("published", "calm", "ring"),
};
export const roleSign = (role: string): Sign => ROLE[role] ?? sign(role, "calm", "dot");

const WATCH: Record<WatchState, Sign> = {
    running: sign("Watched", "busy", "eye"),
    over: sign("Watched to the end", "good", "check"),
    breached: sign("Gate broken while watched", "bad", "cross"),
};
export const watchSign = (state: WatchState): Sign => WATCH[state];

export const FORCED: Sign = sign("Forced to stable", "bad", "lock");

/** What an entry of the audit log tells by itself. */
export function actionSign(action: string): Sign {
    const word = action.replaceAll("_", " ");
    switch (action) {
        case "completed":
        case "first_stable":
            return sign(word, "good", "check");
        case "rolled_back":
            return sign(word, "bad", "back");
        case "check_failed":
        case "watch_breached":
            return sign(word, "bad", "cross");
        case "hold_set":
            return sign(word, "warn", "pause");
        case "unobserved":
            return sign(word, "warn", "diamond");
        case "forced_stable":
            return sign(word, "bad", "lock");
        case "step_entered":
        case "weight_changed":
        case "rollout_started":
        case "promoted":
            return sign(word, "busy", "half");
        case "superseded":
            return sign(word, "calm", "skip");
        default:
            return sign(word, "calm", "dot");
    }
}
