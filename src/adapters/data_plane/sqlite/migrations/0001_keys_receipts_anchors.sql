-- "ZKMS" in ASCII: the mark of a database of this service.
PRAGMA application_id = 1514884435;

-- Values that are pinned at the first start, and the health check's own row.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

-- Ids are 16 bytes, instants microseconds since 1970-01-01 UTC, lists JSON.
CREATE TABLE keys (
    slot               INTEGER PRIMARY KEY,
    key_id             BLOB NOT NULL UNIQUE CHECK (length(key_id) = 16),
    tenant_id          TEXT NOT NULL,
    environment        TEXT NOT NULL,
    plane              TEXT NOT NULL,
    key_type           TEXT NOT NULL,
    key_usage          TEXT NOT NULL CHECK (json_valid(key_usage)),
    key_alias          TEXT,
    key_state          TEXT NOT NULL
        CHECK (key_state IN ('active', 'pending_rotation', 'archived', 'destroyed')),
    version            INTEGER NOT NULL CHECK (version > 0),
    algorithms         TEXT NOT NULL CHECK (json_valid(algorithms)),
    backend            TEXT NOT NULL,
    public_key         TEXT,
    allowed_modules    TEXT NOT NULL CHECK (json_valid(allowed_modules)),
    requires_approval  INTEGER NOT NULL CHECK (requires_approval IN (0, 1)),
    max_usage_per_day  INTEGER NOT NULL CHECK (max_usage_per_day >= 0),
    created_at         INTEGER NOT NULL,
    created_by         TEXT NOT NULL,
    valid_until        INTEGER NOT NULL,
    rotation_count     INTEGER NOT NULL,
    predecessor_key_id BLOB,
    successor_key_id   BLOB,
    rotated_at         INTEGER,
    grace_until        INTEGER,
    archived_at        INTEGER,
    revoked_at         INTEGER,
    revocation_reason  TEXT
) STRICT;

-- Look-ups and pages go by scope first, so that a foreign key and an unknown one
-- are missed at the same place of the same tree.
CREATE INDEX keys_in_scope ON keys (tenant_id, environment, plane, key_id);

-- Pages of one alias, the replaced keys of its line included.
CREATE INDEX keys_of_alias ON keys (tenant_id, environment, plane, key_alias, key_id)
    WHERE key_alias IS NOT NULL;

-- An alias belongs to one active key.
CREATE UNIQUE INDEX active_alias ON keys (tenant_id, environment, plane, key_alias)
    WHERE key_state = 'active' AND key_alias IS NOT NULL;

-- Handles live apart from what changes. SQLite moves the rows of a page when a
-- neighbour grows or goes, and leaves copies behind in the page's free space that
-- no `secure_delete` wipes. A row of this table never moves: it is appended once,
-- and overwritten in place by as many zeros.
CREATE TABLE key_handles (
    slot   INTEGER PRIMARY KEY REFERENCES keys (slot),
    handle BLOB NOT NULL
) STRICT;

CREATE TABLE key_usage (
    key_id      BLOB PRIMARY KEY REFERENCES keys (key_id),
    day         INTEGER NOT NULL,
    used        INTEGER NOT NULL CHECK (used >= 0),
    encryptions INTEGER NOT NULL CHECK (encryptions >= 0)
) STRICT;

-- The ledger: seq is the leaf's index, dense from 0.
CREATE TABLE receipts (
    seq         INTEGER PRIMARY KEY,
    receipt_id  BLOB NOT NULL UNIQUE CHECK (length(receipt_id) = 16),
    tenant_id   TEXT NOT NULL,
    environment TEXT NOT NULL,
    plane       TEXT NOT NULL,
    leaf        BLOB NOT NULL
) STRICT;

CREATE TABLE trust_anchors (
    trust_anchor_id BLOB PRIMARY KEY CHECK (length(trust_anchor_id) = 16),
    tenant_id       TEXT NOT NULL,
    environment     TEXT NOT NULL,
    plane           TEXT NOT NULL,
    anchor_type     TEXT NOT NULL,
    fingerprint     TEXT NOT NULL,
    der             BLOB NOT NULL,
    subject         TEXT NOT NULL,
    not_before      INTEGER NOT NULL,
    not_after       INTEGER NOT NULL,
    added_at        INTEGER NOT NULL,
    added_by        TEXT NOT NULL,
    UNIQUE (tenant_id, environment, plane, fingerprint)
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
BEGIN
    SELECT raise(ABORT, 'a receipt is never deleted');
END;

CREATE TRIGGER receipts_stay_the_same BEFORE UPDATE ON receipts
BEGIN
    SELECT raise(ABORT, 'a receipt is never changed');
END;

CREATE TRIGGER keys_stay BEFORE DELETE ON keys
BEGIN
    SELECT raise(ABORT, 'a key is never deleted');
END;

CREATE TRIGGER keys_are_not_replaced BEFORE INSERT ON keys
WHEN EXISTS (SELECT 1 FROM keys WHERE key_id = NEW.key_id OR slot = NEW.slot)
BEGIN
    SELECT raise(ABORT, 'a key is inserted once');
END;

CREATE TRIGGER destroyed_keys_stay_destroyed BEFORE UPDATE ON keys
WHEN OLD.key_state = 'destroyed' AND NEW.key_state <> 'destroyed'
BEGIN
    SELECT raise(ABORT, 'a destroyed key stays destroyed');
END;

CREATE TRIGGER destroying_erases_the_handle AFTER UPDATE OF key_state ON keys
WHEN NEW.key_state = 'destroyed'
BEGIN
    UPDATE key_handles SET handle = zeroblob(length(handle)) WHERE slot = NEW.slot;
END;

CREATE TRIGGER handles_stay_in_place BEFORE DELETE ON key_handles
BEGIN
    SELECT raise(ABORT, 'a handle is erased in place');
END;

CREATE TRIGGER handles_are_only_erased BEFORE UPDATE ON key_handles
WHEN NEW.slot <> OLD.slot OR NEW.handle <> zeroblob(length(OLD.handle))
BEGIN
    SELECT raise(ABORT, 'a handle is only ever erased');
END;
