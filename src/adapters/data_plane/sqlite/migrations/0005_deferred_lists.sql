-- Receipts as they are listed: by time, and by key. Tables and no indexes, since they
-- are written later than the receipts, many at a time in their order, up to the one that
-- receipts_listed_to in meta says. What came after it is in the memory of whoever serves.
CREATE TABLE receipts_by_time (
    scope     INTEGER NOT NULL,
    ts        INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    operation TEXT NOT NULL,
    PRIMARY KEY (scope, ts, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE receipts_by_key (
    scope     INTEGER NOT NULL,
    key_id    TEXT NOT NULL,
    ts        INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    operation TEXT NOT NULL,
    PRIMARY KEY (scope, key_id, ts, seq)
) STRICT, WITHOUT ROWID;

-- In the order of the indexes that they take the place of.
INSERT INTO receipts_by_time
    SELECT scope, ts, seq, operation FROM receipts INDEXED BY receipts_in_scope
    ORDER BY scope, ts, seq;
INSERT INTO receipts_by_key
    SELECT scope, key_id, ts, seq, operation FROM receipts INDEXED BY receipts_of_key
    WHERE key_id IS NOT NULL ORDER BY scope, key_id, ts, seq;
DROP INDEX receipts_in_scope;
DROP INDEX receipts_of_key;

INSERT INTO meta (name, value)
    SELECT 'receipts_listed_to',
           unhex(printf('%016x', coalesce(max(seq) + 1, 0)))
    FROM receipts;

-- A receipt that goes to an archive is listed there.
CREATE TRIGGER receipts_leave_the_lists AFTER DELETE ON receipts
BEGIN
    DELETE FROM receipts_by_time
    WHERE scope = OLD.scope AND ts = OLD.ts AND seq = OLD.seq;
    DELETE FROM receipts_by_key
    WHERE scope = OLD.scope AND key_id = OLD.key_id AND ts = OLD.ts AND seq = OLD.seq;
END;

CREATE TRIGGER receipts_stay_listed_by_time BEFORE DELETE ON receipts_by_time
WHEN EXISTS (SELECT 1 FROM receipts WHERE seq = OLD.seq)
BEGIN
    SELECT raise(ABORT, 'a receipt stays listed');
END;

CREATE TRIGGER receipts_stay_listed_by_key BEFORE DELETE ON receipts_by_key
WHEN EXISTS (SELECT 1 FROM receipts WHERE seq = OLD.seq)
BEGIN
    SELECT raise(ABORT, 'a receipt stays listed');
END;

CREATE TRIGGER lists_stay_the_same_by_time BEFORE UPDATE ON receipts_by_time
BEGIN
    SELECT raise(ABORT, 'a receipt stays listed');
END;

CREATE TRIGGER lists_stay_the_same_by_key BEFORE UPDATE ON receipts_by_key
BEGIN
    SELECT raise(ABORT, 'a receipt stays listed');
END;

-- Keys used after each other stand beside each other, as their ids do.
CREATE TABLE key_usage_5 (
    key_id       BLOB PRIMARY KEY REFERENCES keys (key_id),
    day          INTEGER NOT NULL,
    used         INTEGER NOT NULL CHECK (used >= 0),
    encryptions  INTEGER NOT NULL CHECK (encryptions >= 0),
    last_used_at INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO key_usage_5
    SELECT key_id, day, used, encryptions, last_used_at FROM key_usage ORDER BY key_id;
DROP TABLE key_usage;
ALTER TABLE key_usage_5 RENAME TO key_usage;

-- The counts of keys that were used lately, as they were after each use. Of the rows of
-- one key the last counts, and it counts more than the one in key_usage, where all are
-- written later, in the order of their keys.
CREATE TABLE key_use_log (
    number       INTEGER PRIMARY KEY,
    key_id       BLOB NOT NULL CHECK (length(key_id) = 16),
    day          INTEGER NOT NULL,
    used         INTEGER NOT NULL CHECK (used >= 0),
    encryptions  INTEGER NOT NULL CHECK (encryptions >= 0),
    last_used_at INTEGER
) STRICT;
