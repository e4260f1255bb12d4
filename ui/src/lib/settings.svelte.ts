// What a person chose here: colour scheme and time zone. Kept in this browser.

type Scheme = "system" | "light" | "dark";
type Zone = "local" | "utc";

function stored(name: string): string | null {
    try {
        return localStorage.getItem(name);
    } catch {
        return null;
    }
}

function store(name: string, value: string) {
    try {
        localStorage.setItem(name, value);
    } catch {
        // It holds for this visit then.
    }
}

class Settings {
    scheme: Scheme = $state("system");
    zone: Zone = $state(stored("serin-zone") === "utc" ? "utc" : "local");

    constructor() {
        const scheme = stored("serin-theme");
        if (scheme === "light" || scheme === "dark") this.scheme = scheme;
    }

    setScheme(scheme: Scheme) {
        this.scheme = scheme;
        store("serin-theme", scheme);
        if (scheme === "system") delete document.documentElement.dataset.theme;
        else document.documentElement.dataset.theme = scheme;
    }

    setZone(zone: Zone) {
        this.zone = zone;
        store("serin-zone", zone);
    }

    /** Whether the page is dark at this moment. */
    get isDark(): boolean {
        return this.scheme === "dark" || (this.scheme === "system" && this.#systemIsDark);
    }

    #system = matchMedia("(prefers-color-scheme: dark)");
    #systemIsDark = $state(this.#system.matches);

    /** Follows the system's scheme until the returned function is called. */
    watch(): () => void {
        const changed = () => (this.#systemIsDark = this.#system.matches);
        this.#system.addEventListener("change", changed);
        return () => this.#system.removeEventListener("change", changed);
    }
}

export const settings = new Settings();
