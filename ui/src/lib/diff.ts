// What differs between two texts, word by word.

/** A run of text that is in both, or in one of the two. */
export interface Piece {
    kind: "same" | "added" | "removed";
    text: string;
}

/** So many changes are looked for word by word; texts that differ more are compared by line. */
const MOST_CHANGES = 2_000;

const wordsOf = (text: string): string[] => text.match(/\r?\n|[^\S\n]+|[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]/gu) ?? [];
const linesOf = (text: string): string[] => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];

/** A number, a version, a name: nobody reads a part of it. */
const isOneWord = (text: string): boolean => !/\s/.test(text) && text.length <= 60;
/** Words between two changes that are shorter than both are read as changed too: nobody follows a text from "the" to "the". */
const LONGEST_CRUMB = 12;

/** What differs between two texts, in reading order; removed before added where both changed. */
export function diff(before: string, after: string): Piece[] {
    if (before !== after && isOneWord(before) && isOneWord(after)) {
        const pieces: Piece[] = [{ kind: "removed", text: before }, { kind: "added", text: after }];
        return pieces.filter(({ text }) => text !== "");
    }
    const byWord = compared(wordsOf(before), wordsOf(after), MOST_CHANGES);
    const byLine = () => compared(linesOf(before), linesOf(after), MOST_CHANGES);
    const pieces = byWord ?? byLine() ?? [
        { kind: "removed", text: before },
        { kind: "added", text: after },
    ];
    return withoutCrumbs(merged(pieces));
}

/** Short runs that are in both, amid longer changes, taken out and put in like what is around them. */
function withoutCrumbs(pieces: Piece[]): Piece[] {
    const size = (piece: Piece | undefined) => (piece === undefined || piece.kind === "same" ? 0 : piece.text.length);
    const isCrumb = (index: number): boolean => {
        const text = pieces[index]?.text ?? "";
        if (text.length > LONGEST_CRUMB || text.includes("\n")) return false;
        const around = (...places: number[]) => Math.max(...places.map((place) => size(pieces[place])));
        return text.length < around(index - 1, index - 2) && text.length < around(index + 1, index + 2);
    };
    const whole = pieces.flatMap((piece, index): Piece[] =>
        piece.kind === "same" && isCrumb(index)
            ? [{ kind: "removed", text: piece.text }, { kind: "added", text: piece.text }]
            : [piece],
    );
    return merged(whole);
}

/** The shortest way from one list to the other (Myers, 1986); nothing where it takes more than `most` changes. */
function compared(before: string[], after: string[], most: number): Piece[] | undefined {
    let start = 0;
    while (start < before.length && start < after.length && before[start] === after[start]) start++;
    let [endA, endB] = [before.length, after.length];
    while (endA > start && endB > start && before[endA - 1] === after[endB - 1]) {
        endA--;
        endB--;
    }
    const middle = shortest(before.slice(start, endA), after.slice(start, endB), most);
    if (middle === undefined) return undefined;
    const same = (words: string[]): Piece[] => words.map((text) => ({ kind: "same", text }));
    return [...same(before.slice(0, start)), ...middle, ...same(before.slice(endA))];
}

function shortest(a: string[], b: string[], most: number): Piece[] | undefined {
    const longest = Math.min(most, a.length + b.length);
    const trace: Map<number, number>[] = [];
    let reached = new Map<number, number>([[1, 0]]);
    for (let changes = 0; changes <= longest; changes++) {
        const next = new Map<number, number>();
        for (let k = -changes; k <= changes; k += 2) {
            const down = k === -changes || (k !== changes && (reached.get(k - 1) ?? -1) < (reached.get(k + 1) ?? -1));
            let x = down ? (reached.get(k + 1) ?? 0) : (reached.get(k - 1) ?? 0) + 1;
            while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
            next.set(k, x);
            if (x >= a.length && x - k >= b.length) return walked(a, b, [...trace, reached]);
        }
        trace.push(reached);
        reached = next;
        // What was furthest two rounds ago is all that the way back needs.
    }
    return undefined;
}

/** The way back through what was reached with each number of changes. */
function walked(a: string[], b: string[], trace: Map<number, number>[]): Piece[] {
    const pieces: Piece[] = [];
    let [x, y] = [a.length, b.length];
    const piece = (kind: Piece["kind"], text: string | undefined) => pieces.push({ kind, text: text ?? "" });
    for (let changes = trace.length - 1; changes >= 0; changes--) {
        const reached = trace[changes] ?? new Map<number, number>();
        const k = x - y;
        const down = k === -changes || (k !== changes && (reached.get(k - 1) ?? -1) < (reached.get(k + 1) ?? -1));
        const from = down ? k + 1 : k - 1;
        const startX = changes === 0 ? 0 : (reached.get(from) ?? 0);
        const startY = changes === 0 ? 0 : startX - from;
        while (x > startX && y > startY && a[x - 1] === b[y - 1]) {
            piece("same", a[--x]);
            y--;
        }
        if (changes === 0) break;
        if (down) piece("added", b[--y]);
        else piece("removed", a[--x]);
    }
    return pieces.reverse();
}

/** Neighbours of a kind as one piece, removed before added, and single spaces not left alone between changes. */
function merged(pieces: Piece[]): Piece[] {
    const whole: Piece[] = [];
    let [removed, added] = ["", ""];
    const flush = () => {
        if (removed !== "") whole.push({ kind: "removed", text: removed });
        if (added !== "") whole.push({ kind: "added", text: added });
        [removed, added] = ["", ""];
    };
    for (const [index, { kind, text }] of pieces.entries()) {
        if (kind === "removed") removed += text;
        else if (kind === "added") added += text;
        else if (removed !== "" && added !== "" && text === " " && pieces[index + 1] && pieces[index + 1]?.kind !== "same") {
            removed += text;
            added += text;
        } else {
            flush();
            const last = whole.at(-1);
            if (last?.kind === "same") last.text += text;
            else whole.push({ kind: "same", text });
        }
    }
    flush();
    return whole;
}

/** Long runs that are in both, cut to what stands beside a change. */
export function shortened(pieces: Piece[], around = 300): Piece[] {
    const last = pieces.length - 1;
    return pieces.map((piece, index) => {
        if (piece.kind !== "same" || piece.text.length <= 2 * around + 60) return piece;
        const head = index === 0 ? "" : piece.text.slice(0, around);
        const tail = index === last ? "" : piece.text.slice(-around);
        return { kind: "same", text: `${head} … ${tail}` };
    });
}
