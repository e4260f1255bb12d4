// Read by the compiler and by svelte-check.
export default {
    compilerOptions: {
        runes: true,
        // A table that is laid out as blocks on a narrow screen is a table to browsers only by its roles.
        warningFilter: ({ code }) => code !== "a11y_no_redundant_roles",
    },
};
