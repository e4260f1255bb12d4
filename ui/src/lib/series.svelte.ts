// The metrics of a rollout over its checks: read once, then only what is new.

import { get } from "../api/client";
import type { SeriesOfMetric, SeriesView } from "../api/schema";

/** As many points as a chart holds; the oldest go first. */
const MOST_POINTS = 3_000;

/** Reads the series of a rollout again and again, each time only what came since. */
export function seriesReader(rollout: () => string): (stop: AbortSignal) => Promise<SeriesView> {
    let read: SeriesView | undefined;
    return async (stop) => {
        const id = rollout();
        const after = read?.rollout === id ? newest(read) : undefined;
        const fresh = await get("/api/v1/rollouts/{id}/series", { id, after }, stop);
        read = read !== undefined && after !== undefined ? joined(read, fresh) : fresh;
        return read;
    };
}

function newest({ series }: SeriesView): string | undefined {
    return series
        .map(({ points }) => points.at(-1)?.at)
        .filter((at) => at !== undefined)
        .reduce<string | undefined>((latest, at) => (latest === undefined || Date.parse(at) > Date.parse(latest) ? at : latest), undefined);
}

function joined(before: SeriesView, fresh: SeriesView): SeriesView {
    const added = new Map(fresh.series.map((one) => [one.metric, one]));
    const series: SeriesOfMetric[] = before.series.map((one) => {
        const more = added.get(one.metric);
        added.delete(one.metric);
        if (more === undefined) return one;
        return { ...one, gate: more.gate ?? one.gate ?? null, points: [...one.points, ...more.points].slice(-MOST_POINTS) };
    });
    return { rollout: before.rollout, series: [...series, ...added.values()] };
}
