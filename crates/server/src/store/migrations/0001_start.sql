-- Times are microseconds since 1970 in UTC; key hashes are 16 bytes, big end first; JSON is text.

CREATE TABLE pack (
    name TEXT NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL,
    state TEXT NOT NULL
);

CREATE TABLE version (
    pack TEXT NOT NULL,
    version TEXT NOT NULL,
    content TEXT,
    content_digest TEXT NOT NULL,
    manifest TEXT NOT NULL,
    plan_digest TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (pack, version)
);

-- The manifest is the text that the rollout runs, which a later apply of the version does not change.
CREATE TABLE rollout (
    id TEXT NOT NULL PRIMARY KEY,
    pack TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    active BIGINT NOT NULL,
    kind TEXT NOT NULL,
    canary TEXT NOT NULL,
    stable TEXT NOT NULL,
    manifest TEXT NOT NULL,
    state TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX rollout_by_pack ON rollout (pack, attempt);

CREATE TABLE cohort (
    pack TEXT NOT NULL,
    id BIGINT NOT NULL,
    version TEXT NOT NULL,
    variant TEXT NOT NULL,
    rollout TEXT,
    body TEXT NOT NULL,
    PRIMARY KEY (pack, id)
);

-- The pin of each session; one without a key of its own (pinned = 0) is kept for baselines only.
CREATE TABLE session (
    key_hash BYTEA NOT NULL PRIMARY KEY,
    pack TEXT NOT NULL,
    session_key TEXT NOT NULL,
    cohort BIGINT NOT NULL,
    pinned BIGINT NOT NULL,
    pinned_at BIGINT NOT NULL,
    last_seen BIGINT NOT NULL
);
CREATE INDEX session_by_start ON session (pack, pinned_at);
CREATE INDEX session_by_end ON session (last_seen);

-- One unit of evidence per session key and rollout; folded counts the ages at which it was folded.
CREATE TABLE unit (
    rollout TEXT NOT NULL,
    key_hash BYTEA NOT NULL,
    pack TEXT NOT NULL,
    cohort BIGINT NOT NULL,
    assigned_at BIGINT NOT NULL,
    folded BIGINT NOT NULL,
    PRIMARY KEY (rollout, key_hash)
);
CREATE INDEX unit_by_maturity ON unit (rollout, folded, assigned_at);

-- kind: 0 a request that has started, 1 one that has ended, 2 an outcome.
CREATE TABLE observation (
    pack TEXT NOT NULL,
    id TEXT NOT NULL,
    key_hash BYTEA NOT NULL,
    cohort BIGINT NOT NULL,
    kind BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (pack, id)
);
CREATE INDEX observation_by_session ON observation (key_hash, started_at);
CREATE INDEX observation_by_start ON observation (started_at);

CREATE TABLE evidence (
    rollout TEXT NOT NULL,
    cohort BIGINT NOT NULL,
    assigned BIGINT NOT NULL,
    counters TEXT NOT NULL,
    PRIMARY KEY (rollout, cohort)
);

-- The rollout is empty for what was seen outside of any.
CREATE TABLE tally (
    rollout TEXT NOT NULL,
    pack TEXT NOT NULL,
    variant TEXT NOT NULL,
    slot_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (rollout, pack, slot_at, variant)
);

-- All slots of a rollout together.
CREATE TABLE tally_total (
    rollout TEXT NOT NULL,
    variant TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (rollout, variant)
);

CREATE TABLE checks (
    rollout TEXT NOT NULL,
    number BIGINT NOT NULL,
    made_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (rollout, number)
);

CREATE TABLE audit (
    seq BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    pack TEXT NOT NULL,
    rollout TEXT,
    revision BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    reason TEXT NOT NULL,
    evidence TEXT NOT NULL,
    prev TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX audit_by_pack ON audit (pack, seq);
