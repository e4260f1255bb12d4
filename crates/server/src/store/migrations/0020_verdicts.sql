-- Sessions that a judge was asked about, or was not asked about because its budget was spent. The row is there before the
-- judge is asked, so that nobody asks twice. Costs are in millionths of a US dollar.
CREATE TABLE verdict (
    rollout TEXT NOT NULL,
    outcome TEXT NOT NULL,
    key_hash BYTEA NOT NULL,
    cohort BIGINT NOT NULL,
    pack TEXT NOT NULL,
    at BIGINT NOT NULL,
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    cost BIGINT NOT NULL,
    reason TEXT,
    PRIMARY KEY (rollout, outcome, key_hash, cohort)
);
CREATE INDEX verdict_by_time ON verdict (pack, outcome, at);
