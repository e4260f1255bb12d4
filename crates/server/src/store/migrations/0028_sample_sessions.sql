-- The samples of a session together, and what is asked of every one of them each second by a judge: without their texts.
CREATE INDEX sample_by_session ON sample (pack, key_hash, cohort, at, rollout, expires_at);
