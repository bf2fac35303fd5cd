//! Trust anchors between their table and the domain.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{instant, parsed};
use crate::domain::ids::TrustAnchorId;
use crate::domain::scope::Scope;
use crate::domain::trust_anchor::{CertificateFacts, TrustAnchor};
use crate::ports::data_plane::{AnchorPage, AnchorQuery};

/// The columns of a [`TrustAnchor`], in the order in which everything here reads
/// and binds them.
macro_rules! anchor_columns {
    () => {
        "trust_anchor_id, tenant_id, environment, plane, anchor_type, fingerprint, der, subject, \
         not_before, not_after, added_at, added_by"
    };
}

/// Inserts an anchor; `false` where its scope has one of that fingerprint.
pub(super) fn insert(connection: &Connection, anchor: &TrustAnchor) -> rusqlite::Result<bool> {
    let (scope, certificate) = (&anchor.scope, &anchor.certificate);
    let inserted = connection
        .prepare_cached(concat!(
            "INSERT INTO trust_anchors (",
            anchor_columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
             ON CONFLICT (tenant_id, environment, plane, fingerprint) DO NOTHING"
        ))?
        .execute(params![
            anchor.trust_anchor_id.as_bytes(),
            scope.tenant_id.as_str(),
            scope.environment.as_str(),
            scope.plane.as_str(),
            anchor.anchor_type.as_str(),
            certificate.fingerprint,
            certificate.der,
            certificate.subject,
            certificate.not_before.microseconds(),
            certificate.not_after.microseconds(),
            anchor.added_at.microseconds(),
            anchor.added_by.as_str()
        ])?;
    Ok(inserted == 1)
}

/// Removes an anchor; `false` where its scope has none of that id.
pub(super) fn remove(
    connection: &Connection,
    scope: &Scope,
    trust_anchor_id: TrustAnchorId,
) -> rusqlite::Result<bool> {
    let removed = connection
        .prepare_cached(
            "DELETE FROM trust_anchors WHERE tenant_id = ?1 AND environment = ?2 \
             AND plane = ?3 AND trust_anchor_id = ?4",
        )?
        .execute(params![
            scope.tenant_id.as_str(),
            scope.environment.as_str(),
            scope.plane.as_str(),
            trust_anchor_id.as_bytes()
        ])?;
    Ok(removed == 1)
}

/// An anchor, scope first: what is unknown and what is foreign are missed alike.
pub(super) fn find(
    connection: &Connection,
    scope: &Scope,
    trust_anchor_id: TrustAnchorId,
) -> rusqlite::Result<Option<TrustAnchor>> {
    connection
        .prepare_cached(concat!(
            "SELECT ",
            anchor_columns!(),
            " FROM trust_anchors INDEXED BY trust_anchors_in_scope WHERE tenant_id = ?1 \
             AND environment = ?2 AND plane = ?3 AND trust_anchor_id = ?4"
        ))?
        .query_row(
            params![
                scope.tenant_id.as_str(),
                scope.environment.as_str(),
                scope.plane.as_str(),
                trust_anchor_id.as_bytes()
            ],
            read,
        )
        .optional()
}

/// One page of a scope's anchors.
pub(super) fn list(connection: &Connection, query: &AnchorQuery) -> rusqlite::Result<AnchorPage> {
    let scope = &query.scope;
    // Every id is after the empty one.
    let after = query.after.as_ref().map_or(&[][..], |id| id.as_bytes());
    // One more than asked for tells whether there are more.
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let mut anchors = connection
        .prepare_cached(concat!(
            "SELECT ",
            anchor_columns!(),
            " FROM trust_anchors INDEXED BY trust_anchors_in_scope WHERE tenant_id = ?1 \
             AND environment = ?2 AND plane = ?3 AND trust_anchor_id > ?4 \
             ORDER BY trust_anchor_id LIMIT ?5"
        ))?
        .query_map(
            params![
                scope.tenant_id.as_str(),
                scope.environment.as_str(),
                scope.plane.as_str(),
                after,
                limit.saturating_add(1)
            ],
            read,
        )?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let has_more = anchors.len() > query.limit;
    anchors.truncate(query.limit);
    Ok(AnchorPage { anchors, has_more })
}

/// Every anchor there is, in one pass over the table.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<TrustAnchor>> {
    connection
        .prepare_cached(concat!("SELECT ", anchor_columns!(), " FROM trust_anchors"))?
        .query_map([], read)?
        .collect()
}

/// The anchor in a row of `anchor_columns!`.
fn read(row: &Row<'_>) -> rusqlite::Result<TrustAnchor> {
    Ok(TrustAnchor {
        trust_anchor_id: TrustAnchorId::from_bytes(row.get(0)?),
        scope: Scope {
            tenant_id: parsed(row, 1)?,
            environment: parsed(row, 2)?,
            plane: parsed(row, 3)?,
        },
        anchor_type: parsed(row, 4)?,
        certificate: CertificateFacts {
            fingerprint: row.get(5)?,
            der: row.get(6)?,
            subject: row.get(7)?,
            not_before: instant(row, 8)?,
            not_after: instant(row, 9)?,
        },
        added_at: instant(row, 10)?,
        added_by: parsed(row, 11)?,
    })
}
