-- The line of rotations that a key belongs to: the id of the line's first key.
ALTER TABLE keys ADD COLUMN line_id BLOB CHECK (length(line_id) = 16);

-- The key's own schedule in microseconds; NULL where its type's holds.
ALTER TABLE keys ADD COLUMN rotation_period INTEGER CHECK (rotation_period > 0);

-- When an active key is to be replaced, some time before its valid_until.
ALTER TABLE keys ADD COLUMN rotate_at INTEGER;

-- When a destroyed key's secret goes: until then the key can be restored, and its
-- handle is kept. NULL where the secret is gone.
ALTER TABLE keys ADD COLUMN erase_at INTEGER;

-- From each key to its successor, which is found by its id.
WITH RECURSIVE lines (line_id, key_id, successor_key_id) AS (
    SELECT key_id, key_id, successor_key_id FROM keys WHERE predecessor_key_id IS NULL
    UNION ALL
    SELECT lines.line_id, keys.key_id, keys.successor_key_id
    FROM lines JOIN keys ON keys.key_id = lines.successor_key_id
)
UPDATE keys SET line_id = lines.line_id FROM lines WHERE lines.key_id = keys.key_id;
UPDATE keys SET line_id = key_id WHERE line_id IS NULL;

UPDATE keys SET rotate_at = valid_until WHERE key_state = 'active';

CREATE INDEX keys_of_line ON keys (tenant_id, environment, plane, line_id, rotation_count);

-- What a task finds that comes by now and then, the longest due first.
CREATE INDEX keys_to_rotate ON keys (rotate_at) WHERE key_state = 'active';
CREATE INDEX keys_to_rotate_first ON keys (valid_until) WHERE key_state = 'active';
CREATE INDEX keys_to_archive ON keys (grace_until) WHERE key_state = 'pending_rotation';
CREATE INDEX keys_to_erase ON keys (erase_at) WHERE erase_at IS NOT NULL;

ALTER TABLE key_usage ADD COLUMN last_used_at INTEGER;

-- Who does a task that only one may do at a time, and until when.
CREATE TABLE leases (
    name   TEXT PRIMARY KEY,
    holder BLOB NOT NULL CHECK (length(holder) = 16),
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Keys whose making was begun in a backend that keeps them itself, and that no
-- transaction has stored yet: what a crash leaves behind there is found by these.
CREATE TABLE key_intents (
    key_id   BLOB PRIMARY KEY CHECK (length(key_id) = 16),
    backend  TEXT NOT NULL,
    begun_at INTEGER NOT NULL,
    -- Given up: no transaction stores it any more.
    abandoned INTEGER NOT NULL DEFAULT 0 CHECK (abandoned IN (0, 1))
) STRICT, WITHOUT ROWID;

-- A destroyed key comes back only as archived, and only while its secret is kept.
DROP TRIGGER destroyed_keys_stay_destroyed;
CREATE TRIGGER destroyed_keys_stay_destroyed BEFORE UPDATE ON keys
WHEN OLD.key_state = 'destroyed' AND NEW.key_state <> 'destroyed'
    AND (OLD.erase_at IS NULL OR NEW.key_state <> 'archived')
BEGIN
    SELECT raise(ABORT, 'a destroyed key stays destroyed');
END;

CREATE TRIGGER erased_keys_stay_erased BEFORE UPDATE ON keys
WHEN OLD.key_state = 'destroyed' AND OLD.erase_at IS NULL AND NEW.erase_at IS NOT NULL
BEGIN
    SELECT raise(ABORT, 'an erased key stays erased');
END;

DROP TRIGGER destroying_erases_the_handle;
CREATE TRIGGER destroying_erases_the_handle AFTER UPDATE OF key_state, erase_at ON keys
WHEN NEW.key_state = 'destroyed' AND NEW.erase_at IS NULL
BEGIN
    UPDATE key_handles SET handle = zeroblob(length(handle)) WHERE slot = NEW.slot;
END;

-- A secret that is sealed anew takes the place of the old one, byte for byte.
DROP TRIGGER handles_are_only_erased;
CREATE TRIGGER handles_keep_their_place BEFORE UPDATE ON key_handles
WHEN NEW.slot <> OLD.slot OR length(NEW.handle) <> length(OLD.handle)
BEGIN
    SELECT raise(ABORT, 'a handle is overwritten in place');
END;

CREATE TRIGGER erased_handles_stay_erased BEFORE UPDATE ON key_handles
WHEN OLD.handle = zeroblob(length(OLD.handle)) AND NEW.handle <> OLD.handle
BEGIN
    SELECT raise(ABORT, 'an erased handle stays erased');
END;
