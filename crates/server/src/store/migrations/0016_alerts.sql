-- Alerts of other systems that fire or fired lately. scope holds the packs of the key that said so, as a JSON list,
-- or * for all packs; labels is a JSON object.
CREATE TABLE alert (
    scope TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    summary TEXT NOT NULL,
    url TEXT,
    said_by TEXT NOT NULL,
    since BIGINT NOT NULL,
    said_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    resolved_at BIGINT,
    PRIMARY KEY (scope, fingerprint)
);
