-- How far each receiver of notifications is in the audit log, and what stands in its way.
CREATE TABLE notify_receiver (
    name TEXT NOT NULL PRIMARY KEY,
    done BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    refusals BIGINT NOT NULL,
    failing_since BIGINT,
    next_at BIGINT,
    problem TEXT
);

-- Entries of the audit log that a receiver was not told of.
CREATE TABLE notify_dead (
    receiver TEXT NOT NULL,
    seq BIGINT NOT NULL,
    buried_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    problem TEXT NOT NULL,
    PRIMARY KEY (receiver, seq)
);

-- Links to one action that were used; each works once.
CREATE TABLE link_used (
    id TEXT NOT NULL PRIMARY KEY,
    label TEXT NOT NULL,
    used_at BIGINT NOT NULL
);
