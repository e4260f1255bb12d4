-- Conversations that were recorded, redacted. The body holds what was said; signals stand between commas.
CREATE TABLE sample (
    id TEXT NOT NULL PRIMARY KEY,
    pack TEXT NOT NULL,
    version TEXT NOT NULL,
    variant TEXT,
    rollout TEXT,
    segment TEXT,
    key_hash BYTEA NOT NULL,
    session_key TEXT NOT NULL,
    cohort BIGINT NOT NULL,
    at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    signals TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX sample_by_version ON sample (pack, version, at);
CREATE INDEX sample_by_time ON sample (pack, at);
CREATE INDEX sample_by_expiry ON sample (expires_at);
