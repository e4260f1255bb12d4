// How numbers and points in time are written.

import type { MetricUnit } from "../api/schema";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 12,345 */
export const count = (value: number): string => whole.format(value);

/** "1 session", "12,345 sessions" */
export const counted = (value: number, noun: string): string =>
    `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** A weight or a share in percent, with no more digits than it has: 30%, 0.05%. */
export function percent(value: number, digits = 2): string {
    return `${Number(value.toFixed(digits))}%`;
}

/** A value of a metric in its unit, with the digits that the server and the terminal give it. */
export function measured(value: number, unit: MetricUnit): string {
    switch (unit) {
        case "share":
            return `${(value * 100).toFixed(1)}%`;
        case "milliseconds":
            if (Math.abs(value) >= 10_000) return `${(value / 1_000).toFixed(1)}s`;
            return Math.abs(value) >= 1_000 ? `${(value / 1_000).toFixed(2)}s` : `${value.toFixed(0)}ms`;
        case "dollars":
            return `$${value.toFixed(4)}`;
        case "rating":
            return `${value.toFixed(2)}/5`;
        case "score":
            return value.toFixed(2);
        case "turns":
        case "tokens":
        case "characters":
            return value.toFixed(1);
        case "number":
            return value.toFixed(3);
    }
}

/** The same with four digits that count, where the usual ones do not tell two values apart. */
export function finely(value: number, unit: MetricUnit): string {
    const digits = (value: number) => String(Number(value.toPrecision(4)));
    switch (unit) {
        case "share":
            return `${digits(value * 100)}%`;
        case "milliseconds":
            return `${digits(value)}ms`;
        case "dollars":
            return `$${digits(value)}`;
        case "rating":
        case "score":
        case "turns":
        case "tokens":
        case "characters":
        case "number":
            return digits(value);
    }
}

const UNITS_MS: Record<string, number> = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1_000, ms: 1 };

/** "1h30m" in milliseconds. */
export function durationMs(text: string): number {
    let sum = 0;
    for (const [, amount, unit] of text.matchAll(/([\d.]+)(ms|[dhms])/g)) {
        sum += Number(amount) * (UNITS_MS[unit ?? "s"] ?? 0);
    }
    return sum;
}

/** "2 m 30 s": the two largest units that say something. */
export function duration(milliseconds: number): string {
    const seconds = Math.max(0, Math.round(milliseconds / 1_000));
    if (seconds < 60) return `${seconds}s`;
    const minutes = Math.floor(seconds / 60);
    if (minutes < 60) return seconds % 60 === 0 ? `${minutes}m` : `${minutes}m ${seconds % 60}s`;
    const hours = Math.floor(minutes / 60);
    if (hours < 48) return minutes % 60 === 0 ? `${hours}h` : `${hours}h ${minutes % 60}m`;
    const days = Math.floor(hours / 24);
    return hours % 24 === 0 ? `${days}d` : `${days}d ${hours % 24}h`;
}

/** "3m ago", "in 20s", "now" */
export function relative(at: number, now: number): string {
    const away = at - now;
    if (Math.abs(away) < 1_000) return "now";
    // Older than an hour, nobody counts seconds; older than a minute, nobody wants them to flicker.
    const size = Math.abs(away);
    const rough = away < 0 && size > 60_000 ? Math.floor(size / 60_000) * 60_000 : size;
    return away < 0 ? `${duration(rough)} ago` : `in ${duration(rough)}`;
}

const parts = (zone: "local" | "utc", options: Intl.DateTimeFormatOptions) =>
    new Intl.DateTimeFormat("en-GB", zone === "utc" ? { ...options, timeZone: "UTC" } : options);

const HOUR: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
const DAY: Intl.DateTimeFormatOptions = { day: "numeric", month: "short" };
const formats = {
    local: { time: parts("local", HOUR), day: parts("local", DAY), year: parts("local", { year: "numeric" }) },
    utc: { time: parts("utc", HOUR), day: parts("utc", DAY), year: parts("utc", { year: "numeric" }) },
};

/** The time of day, with the day when it is not today's, with the year when it is not this one's. */
export function pointInTime(at: number, zone: "local" | "utc", now: number): string {
    const { time, day, year } = formats[zone];
    const sign = zone === "utc" ? " UTC" : "";
    if (day.format(at) === day.format(now) && year.format(at) === year.format(now)) {
        return `${time.format(at)}${sign}`;
    }
    const isThisYear = year.format(at) === year.format(now);
    return `${day.format(at)}${isThisYear ? "" : ` ${year.format(at)}`} ${time.format(at)}${sign}`;
}

/** The odds of evidence: e^2.3 is "10 : 1". */
export function odds(log: number): string {
    const value = Math.exp(Math.min(log, 20));
    if (value < 1) return "below 1 : 1";
    return `${value >= 10 ? whole.format(value) : Number(value.toFixed(1))} : 1`;
}

/** How far the evidence of a gate is on its way to a rollback, 0 to 1. */
export const evidence = (howSure: number): string => `${percent(howSure * 100, 0)} of the evidence for a rollback`;

/** "rolled_back" as people write it. */
export const words = (action: string): string => action.replaceAll("_", " ");
