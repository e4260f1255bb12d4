-- By which way something was caused, and the id of the key; absent in entries from before.
ALTER TABLE audit ADD COLUMN source TEXT;
ALTER TABLE audit ADD COLUMN key_id TEXT;

-- The last entry that was written, so that entries taken away at the end are missed.
CREATE TABLE audit_head (
    one BIGINT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO audit_head (one, seq, hash) SELECT 1, seq, hash FROM audit ORDER BY seq DESC LIMIT 1;
