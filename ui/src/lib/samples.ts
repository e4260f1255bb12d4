// Which conversations stand behind a metric, the worst first.

import type { SampleSignal, SampleView } from "../api/schema";

export const SIGNALS: SampleSignal[] = [
    "error", "refusal", "truncated", "empty", "tool_wrong", "invalid_format", "repeated_question", "left", "unreadable",
];

/** Outcomes that apps often report, with the value that is bad. */
export const OUTCOMES = [
    { value: "task_completion:0", word: "task not completed" },
    { value: "task_completion:1", word: "task completed" },
    { value: "escalation:1", word: "escalated" },
    { value: "escalation:0", word: "not escalated" },
    { value: "user_satisfaction:1", word: "rated 1 of 5" },
    { value: "user_satisfaction:5", word: "rated 5 of 5" },
];

const BEHIND: Record<string, { signal?: SampleSignal; outcome?: string }> = {
    success_rate: { signal: "error" },
    error_rate: { signal: "error" },
    refusal_rate: { signal: "refusal" },
    truncation_rate: { signal: "truncated" },
    empty_response_rate: { signal: "empty" },
    tool_call_accuracy: { signal: "tool_wrong" },
    invalid_format_rate: { signal: "invalid_format" },
    repeated_question_rate: { signal: "repeated_question" },
    task_completion_rate: { outcome: "task_completion:0" },
    escalation_rate: { outcome: "escalation:1" },
    user_satisfaction_avg: { outcome: "user_satisfaction" },
    sentiment_avg: { outcome: "sentiment" },
};

/** What stands behind the question mark of the page that shows the conversations behind a metric. */
export function behind(metric: string, rollout: string): string {
    const query = new URLSearchParams({ rollout, ...BEHIND[metric] });
    if (order(metric) !== undefined) query.set("worst", metric);
    return query.toString();
}

/** How conversations are put in order for a metric whose values differ between them: the worst first. */
export function order(metric: string): ((a: SampleView, b: SampleView) => number) | undefined {
    if (metric.startsWith("latency")) return (a, b) => (b.latency_ms ?? 0) - (a.latency_ms ?? 0);
    const outcome = { user_satisfaction_avg: "user_satisfaction", sentiment_avg: "sentiment" }[metric];
    if (outcome !== undefined) return (a, b) => (a.outcomes[outcome] ?? Infinity) - (b.outcomes[outcome] ?? Infinity);
    if (metric === "response_length_avg") return (a, b) => b.answer.length - a.answer.length;
    return undefined;
}

/** What order() does, for people. */
export function worstFirst(metric: string): string {
    if (metric.startsWith("latency")) return "Slowest first, of the newest 100";
    if (metric === "response_length_avg") return "Longest first, of the newest 100";
    return "Lowest first, of the newest 100";
}
