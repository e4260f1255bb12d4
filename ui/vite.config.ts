import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// What is built is committed: nothing in it may depend on the machine or the day.
export default defineConfig({
    plugins: [svelte()],
    build: {
        target: "es2023",
        assetsInlineLimit: 0,
        modulePreload: { polyfill: false },
        reportCompressedSize: false,
    },
    // `npm run dev` shows the sources against a running server.
    server: { port: 8982, proxy: { "/api": "http://127.0.0.1:8981" } },
});
