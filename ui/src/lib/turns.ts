// Work that is drawn, a piece in each frame: so that many charts at once never hold the page up.

const waiting = new Map<object, () => void>();
let isAsked = false;

/** Does something in a frame of its own, after what waits already; a later wish of the same owner takes its place. */
export function inTurn(owner: object, job: () => void): void {
    waiting.set(owner, job);
    ask();
}

/** Takes back what an owner waits for. */
export function forget(owner: object): void {
    waiting.delete(owner);
}

function ask(): void {
    if (isAsked || waiting.size === 0) return;
    isAsked = true;
    requestAnimationFrame(() => {
        isAsked = false;
        const [next] = waiting;
        if (next === undefined) return;
        const [owner, job] = next;
        waiting.delete(owner);
        job();
        ask();
    });
}
