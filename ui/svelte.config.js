// Read by the compiler and by svelte-check.
export default { compilerOptions: { runes: true } };
