// Addresses of pages: real paths, so that every view can be linked to.

class Router {
    path = $state(location.pathname);
    query = $state.raw(new URLSearchParams(location.search));

    constructor() {
        addEventListener("popstate", () => this.#read());
    }

    /** Goes to a page of ours. */
    go(to: string, how: "push" | "replace" = "push") {
        if (how === "push") history.pushState(null, "", to);
        else history.replaceState(null, "", to);
        const isNewPage = this.path !== location.pathname;
        this.#read();
        if (isNewPage && how === "push") {
            scrollTo(0, 0);
            // A screen reader reads the new page from its start.
            queueMicrotask(() => document.querySelector<HTMLElement>("main")?.focus({ preventScroll: true }));
        }
    }

    /** Changes what stands behind the question mark and stays on the page. */
    set(changes: Record<string, string | undefined>) {
        const query = new URLSearchParams(this.query);
        for (const [name, value] of Object.entries(changes)) {
            if (value === undefined || value === "") query.delete(name);
            else query.set(name, value);
        }
        const text = query.toString();
        this.go(text === "" ? this.path : `${this.path}?${text}`, "replace");
    }

    #read() {
        this.path = location.pathname;
        this.query = new URLSearchParams(location.search);
    }
}

export const router = new Router();

/** Lets plain clicks on links to our own pages change the page without loading it. */
export function follow(event: MouseEvent) {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element | null)?.closest("a");
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    // An anchor within the page is the browser's.
    if (link.pathname === location.pathname && link.hash !== "") return;
    // What the server answers itself.
    if (link.pathname.startsWith("/api/") || link.pathname.startsWith("/oidc/")) return;
    event.preventDefault();
    router.go(link.pathname + link.search);
}

export type Page =
    | { name: "overview" }
    | { name: "rollout"; pack: string }
    | { name: "past"; rollout: string }
    | { name: "versions"; pack: string }
    | { name: "diff"; pack: string }
    | { name: "conversations"; pack: string }
    | { name: "explain"; pack: string }
    | { name: "audit" }
    | { name: "oncall" }
    | { name: "unknown" };

/** The page at a path. */
export function pageAt(path: string): Page {
    let parts: string[];
    try {
        parts = path.split("/").filter((part) => part !== "").map(decodeURIComponent);
    } catch {
        return { name: "unknown" };
    }
    const [first, second, third, ...rest] = parts;
    if (rest.length > 0) return { name: "unknown" };
    if (first === undefined) return { name: "overview" };
    if (second === undefined) {
        return first === "audit" || first === "oncall" ? { name: first } : { name: "unknown" };
    }
    if (first === "rollouts" && third === undefined) return { name: "past", rollout: second };
    if (first !== "packs") return { name: "unknown" };
    switch (third) {
        case undefined:
            return { name: "rollout", pack: second };
        case "versions":
        case "diff":
        case "conversations":
        case "explain":
            return { name: third, pack: second };
        default:
            return { name: "unknown" };
    }
}

/** Where the pages of a pack are. */
export const packPath = (pack: string, page = "") =>
    `/packs/${encodeURIComponent(pack)}${page === "" ? "" : `/${page}`}`;
export const rolloutPath = (id: string) => `/rollouts/${encodeURIComponent(id)}`;
