// Where a gate's threshold lies on a chart.

import type { MetricUnit } from "../api/schema";

/** The value in a rule such as ">= 90%" or "<= 3s", in the unit of the metric; nothing for a comparison with stable. */
export function thresholdOf(rule: string | null | undefined, unit: MetricUnit): number | undefined {
    const found = /^(?:>=|<=|>|<|==|=)\s*\$?(-?[\d.,]+)\s*(%|ms|s|m|h|\S*)$/.exec(rule?.trim() ?? "");
    if (!found?.[1]) return undefined;
    const value = Number(found[1].replaceAll(",", ""));
    if (Number.isNaN(value)) return undefined;
    if (unit === "share") return found[2] === "%" ? value / 100 : value;
    if (unit === "milliseconds") {
        const factor = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }[found[2] ?? "ms"];
        return value * (factor ?? 1);
    }
    return value;
}
