-- Where a session counts as a unit of evidence is noted with the session itself, so that a unit needs no index by the hash
-- of its key: units lie in the order of time, and a new session changes one scattered page instead of two.
--
-- A session that is forgotten while it counts in a rollout that still matters leaves its name (session_key is empty then)
-- and nothing else. (Those that were forgotten before this migration have no row, and would count once more if they
-- came back in the same rollout.)
ALTER TABLE session ADD COLUMN counted_in TEXT NOT NULL DEFAULT '';
UPDATE session SET counted_in = latest.rollout FROM (
    SELECT key_hash, rollout,
           ROW_NUMBER() OVER (PARTITION BY key_hash ORDER BY assigned_at DESC) AS place
    FROM unit
) AS latest
WHERE latest.key_hash = session.key_hash AND latest.place = 1;

DROP INDEX session_by_end;
CREATE INDEX session_by_end ON session (last_seen) WHERE session_key <> '';
CREATE INDEX session_forgotten ON session (counted_in) WHERE session_key = '';

CREATE TABLE unit_in_order (
    rollout TEXT NOT NULL,
    assigned_at BIGINT NOT NULL,
    key_hash BYTEA NOT NULL,
    pack TEXT NOT NULL,
    cohort BIGINT NOT NULL,
    folded BIGINT NOT NULL,
    PRIMARY KEY (rollout, assigned_at, key_hash)
);
INSERT INTO unit_in_order (rollout, assigned_at, key_hash, pack, cohort, folded)
    SELECT rollout, assigned_at, key_hash, pack, cohort, folded FROM unit ORDER BY rollout, assigned_at, key_hash;
DROP TABLE unit;
ALTER TABLE unit_in_order RENAME TO unit;
CREATE INDEX unit_by_maturity ON unit (rollout, folded, assigned_at);
