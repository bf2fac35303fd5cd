-- Approvals that were acted on, each for as long as it could be presented again.
CREATE TABLE spent_grants (
    token_id     TEXT PRIMARY KEY,
    usable_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The oldest are forgotten first.
CREATE INDEX spent_grants_by_end ON spent_grants (usable_until);

-- Look-ups and pages go by scope first, as with keys: a foreign anchor and an
-- unknown one are missed at the same place of the same tree.
CREATE INDEX trust_anchors_in_scope
    ON trust_anchors (tenant_id, environment, plane, trust_anchor_id);
