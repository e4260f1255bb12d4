-- Keys that people, pipelines and apps show; of each only the BLAKE3 hash is kept, as 64 hexadecimal digits.
-- packs is a JSON list of names, or nothing for all packs.
CREATE TABLE api_key (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    hash TEXT NOT NULL,
    role TEXT NOT NULL,
    packs TEXT,
    read_prompts BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT
);
