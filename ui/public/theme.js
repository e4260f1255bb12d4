// Before the first paint: the colour scheme that somebody chose here, if not the one of the system.
try {
    const chosen = localStorage.getItem("serin-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
    // Without storage the system's scheme it is.
}
