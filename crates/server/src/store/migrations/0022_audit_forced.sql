-- Found at each start without reading the whole log: the last word about the break-glass file and each pack.
CREATE INDEX audit_forced ON audit (seq) WHERE action IN ('forced_stable', 'forced_stable_cleared');
