-- Compartments by number: receipts and their indexes bear it instead of three texts.
CREATE TABLE scopes (
    scope       INTEGER PRIMARY KEY,
    tenant_id   TEXT NOT NULL,
    environment TEXT NOT NULL,
    plane       TEXT NOT NULL,
    UNIQUE (tenant_id, environment, plane)
) STRICT;

INSERT INTO scopes (tenant_id, environment, plane)
    SELECT DISTINCT tenant_id, environment, plane FROM receipts;

-- The ledger: seq is the leaf's index, dense from 0. What receipts are looked for
-- by stands beside the leaf; the leaf is what counts. It fits into the two bytes that
-- a bundle of entries has for its length (C2SP tlog-tiles).
CREATE TABLE receipts_3 (
    seq        INTEGER PRIMARY KEY,
    receipt_id BLOB NOT NULL CHECK (length(receipt_id) = 16),
    scope      INTEGER NOT NULL REFERENCES scopes (scope),
    ts         INTEGER NOT NULL,
    operation  TEXT NOT NULL,
    key_id     TEXT,
    leaf       BLOB NOT NULL CHECK (length(leaf) BETWEEN 1 AND 65535)
) STRICT;

-- A receipt's own time is RFC 3339 with six digits of a second.
INSERT INTO receipts_3 (seq, receipt_id, scope, ts, operation, key_id, leaf)
    SELECT seq, receipt_id, scope,
           unixepoch(json_extract(json, '$.ts')) * 1000000
               + CAST(substr(json_extract(json, '$.ts'), 21, 6) AS INTEGER),
           json_extract(json, '$.operation'),
           json_extract(json, '$.kms_context.key_id'),
           leaf
    FROM (SELECT *, CAST(leaf AS TEXT) AS json FROM receipts)
    JOIN scopes USING (tenant_id, environment, plane);

DROP TABLE receipts;
ALTER TABLE receipts_3 RENAME TO receipts;

-- The scope is in the index, so that a foreign receipt and an unknown one are
-- missed at the same place of the same tree.
CREATE INDEX receipts_by_id ON receipts (receipt_id, scope);
CREATE INDEX receipts_in_scope ON receipts (scope, ts, seq, operation);
CREATE INDEX receipts_of_key ON receipts (scope, key_id, ts, seq, operation)
    WHERE key_id IS NOT NULL;

-- 256 hashes of 32 bytes, kept once they no longer change. Of level 0 those of the
-- leaves, of each level above one hash a tile below.
CREATE TABLE tiles (
    level      INTEGER NOT NULL,
    tile_index INTEGER NOT NULL,
    hashes     BLOB NOT NULL CHECK (length(hashes) = 8192),
    PRIMARY KEY (level, tile_index)
) STRICT;

-- The newest checkpoint, in the one row there is, replaced with every batch.
CREATE TABLE ledger_head (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    note TEXT NOT NULL
) STRICT;

-- Those that were kept on the way.
CREATE TABLE checkpoints (
    number INTEGER PRIMARY KEY,
    size   INTEGER NOT NULL CHECK (size >= 0),
    note   TEXT NOT NULL
) STRICT;

-- The public keys that signed, and the checkpoint by which each took over.
CREATE TABLE ledger_keys (
    number     INTEGER PRIMARY KEY,
    public_key BLOB NOT NULL UNIQUE CHECK (length(public_key) = 32),
    from_size  INTEGER NOT NULL CHECK (from_size >= 0),
    handover   TEXT
) STRICT;

-- Receipts that were moved to a file of their own, from first_seq to before end_seq.
CREATE TABLE archives (
    first_seq INTEGER PRIMARY KEY CHECK (first_seq >= 0),
    end_seq   INTEGER NOT NULL CHECK (end_seq > first_seq),
    file      TEXT NOT NULL
) STRICT;

CREATE TRIGGER receipts_are_dense BEFORE INSERT ON receipts
WHEN NEW.seq <> (SELECT coalesce(max(seq) + 1, 0) FROM receipts)
BEGIN
    SELECT raise(ABORT, 'a receipt takes the next place in the ledger');
END;

-- An INSERT OR REPLACE deletes without asking the trigger for deletions.
CREATE TRIGGER receipts_are_not_replaced BEFORE INSERT ON receipts
WHEN EXISTS (SELECT 1 FROM receipts WHERE receipt_id = NEW.receipt_id)
BEGIN
    SELECT raise(ABORT, 'a receipt is kept once');
END;

CREATE TRIGGER receipts_stay BEFORE DELETE ON receipts
WHEN NOT EXISTS (
    SELECT 1 FROM archives WHERE OLD.seq >= first_seq AND OLD.seq < end_seq
)
BEGIN
    SELECT raise(ABORT, 'a receipt is never deleted');
END;

CREATE TRIGGER receipts_stay_the_same BEFORE UPDATE ON receipts
BEGIN
    SELECT raise(ABORT, 'a receipt is never changed');
END;

CREATE TRIGGER tiles_stay BEFORE DELETE ON tiles
BEGIN
    SELECT raise(ABORT, 'a tile is never deleted');
END;

CREATE TRIGGER tiles_stay_the_same BEFORE UPDATE ON tiles
BEGIN
    SELECT raise(ABORT, 'a tile is never changed');
END;

CREATE TRIGGER tiles_are_not_replaced BEFORE INSERT ON tiles
WHEN EXISTS (SELECT 1 FROM tiles WHERE level = NEW.level AND tile_index = NEW.tile_index)
BEGIN
    SELECT raise(ABORT, 'a tile is kept once');
END;

CREATE TRIGGER checkpoints_stay BEFORE DELETE ON checkpoints
BEGIN
    SELECT raise(ABORT, 'a checkpoint is never deleted');
END;

CREATE TRIGGER checkpoints_stay_the_same BEFORE UPDATE ON checkpoints
BEGIN
    SELECT raise(ABORT, 'a checkpoint is never changed');
END;

CREATE TRIGGER ledger_keys_stay BEFORE DELETE ON ledger_keys
BEGIN
    SELECT raise(ABORT, 'a key of the ledger is never deleted');
END;

CREATE TRIGGER ledger_keys_stay_the_same BEFORE UPDATE ON ledger_keys
BEGIN
    SELECT raise(ABORT, 'a key of the ledger is never changed');
END;

CREATE TRIGGER archives_stay BEFORE DELETE ON archives
BEGIN
    SELECT raise(ABORT, 'an archive is never forgotten');
END;
