-- "ZKAR" in ASCII: the mark of an archive of receipts.
PRAGMA application_id = 1514881362;
PRAGMA user_version = 1;

-- What is in it, in one row that is written last.
CREATE TABLE archive (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    first_seq INTEGER NOT NULL CHECK (first_seq >= 0),
    end_seq   INTEGER NOT NULL CHECK (end_seq > first_seq),
    first_ts  INTEGER NOT NULL,
    last_ts   INTEGER NOT NULL,
    first_id  BLOB NOT NULL CHECK (length(first_id) = 16),
    last_id   BLOB NOT NULL CHECK (length(last_id) = 16)
) STRICT;

-- These two as in the store.
CREATE TABLE scopes (
    scope       INTEGER PRIMARY KEY,
    tenant_id   TEXT NOT NULL,
    environment TEXT NOT NULL,
    plane       TEXT NOT NULL,
    UNIQUE (tenant_id, environment, plane)
) STRICT;

CREATE TABLE receipts (
    seq        INTEGER PRIMARY KEY,
    receipt_id BLOB NOT NULL CHECK (length(receipt_id) = 16),
    scope      INTEGER NOT NULL REFERENCES scopes (scope),
    ts         INTEGER NOT NULL,
    operation  TEXT NOT NULL,
    key_id     TEXT,
    leaf       BLOB NOT NULL CHECK (length(leaf) BETWEEN 1 AND 65535)
) STRICT;

CREATE INDEX receipts_by_id ON receipts (receipt_id, scope);
CREATE INDEX receipts_in_scope ON receipts (scope, ts, seq, operation);
CREATE INDEX receipts_of_key ON receipts (scope, key_id, ts, seq, operation)
    WHERE key_id IS NOT NULL;
