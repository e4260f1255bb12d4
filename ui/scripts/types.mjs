// Writes src/api/schema.d.ts, the types of the API, from its description as the server's tests have it.
// They are made anew before each check and are not committed: they leave no trace in what is built.

import { readFileSync, writeFileSync } from "node:fs";

const here = (path) => new URL(path, import.meta.url);
const snapshot = readFileSync(
    here("../../crates/server/tests/api/snapshots/api__documents__openapi.snap"),
    "utf8",
);
// A snapshot begins with a header between two lines of dashes.
const description = JSON.parse(snapshot.slice(snapshot.indexOf("\n---\n", 3) + 5));

function type(schema) {
    if (schema === undefined) return "unknown";
    if (schema.$ref) return schema.$ref.split("/").at(-1);
    for (const [word, sign] of [["oneOf", " | "], ["anyOf", " | "], ["allOf", " & "]]) {
        if (schema[word]) return `(${schema[word].map(type).join(sign)})`;
    }
    if (schema.enum) return schema.enum.map((word) => JSON.stringify(word)).join(" | ");
    if (schema.const !== undefined) return JSON.stringify(schema.const);
    if (Array.isArray(schema.type)) {
        return schema.type.map((one) => type({ ...schema, type: one })).join(" | ");
    }
    switch (schema.type) {
        case "string":
            return "string";
        case "integer":
        case "number":
            return "number";
        case "boolean":
            return "boolean";
        case "null":
            return "null";
        case "array":
            return `(${type(schema.items)})[]`;
        case "object":
            return object(schema);
        default:
            return "unknown";
    }
}

function object({ properties = {}, required = [], additionalProperties }) {
    const members = Object.entries(properties).map(([name, schema]) => {
        const sign = required.includes(name) ? "" : "?";
        return `${JSON.stringify(name)}${sign}: ${type(schema)}`;
    });
    if (members.length > 0) return `{ ${members.join("; ")} }`;
    return `Record<string, ${additionalProperties ? type(additionalProperties) : "unknown"}>`;
}

function answer(operation) {
    const content = operation.responses["200"]?.content ?? {};
    return type(content["application/json"]?.schema);
}

const lines = ["// Made by scripts/types.mjs from the description of the API."];
for (const [name, schema] of Object.entries(description.components.schemas)) {
    lines.push(`export type ${name} = ${type(schema)};`);
}
for (const verb of ["get", "post", "delete"]) {
    lines.push(`/** What each path answers to ${verb.toUpperCase()}. */`);
    lines.push(`export interface ${verb[0].toUpperCase()}${verb.slice(1)}s {`);
    for (const [path, operations] of Object.entries(description.paths)) {
        if (operations[verb]) lines.push(`    ${JSON.stringify(path)}: ${answer(operations[verb])};`);
    }
    lines.push("}");
}
writeFileSync(here("../src/api/schema.d.ts"), `${lines.join("\n")}\n`);
