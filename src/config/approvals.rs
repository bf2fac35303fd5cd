//! `approvals.*`: the second person.
//!
//! It knows which operations need one and how many, and not how an approval is
//! checked.

use std::num::NonZeroU8;

use crate::domain::policy::ApprovalGroup;

use super::auth::{KeySetLocation, key_set};
use super::reader::Reader;
use super::value::{choice, list, whole};

/// How dual authorization works.
pub struct Approvals {
    /// What counts as an approval.
    pub mode: ApprovalMode,
    /// The approvers' public keys, as a JWKS.
    pub jwks: Option<KeySetLocation>,
    /// How many distinct approvers an operation needs.
    pub quorum: NonZeroU8,
    /// The groups of operations that need approval.
    pub operations: Vec<ApprovalGroup>,
}

/// What counts as an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalMode {
    /// Any token of ten characters or more: for trying the service out.
    Development,
    /// A token signed by an approver.
    Signed,
}

impl Approvals {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let modes = choice(&[
            ("development", ApprovalMode::Development),
            ("signed", ApprovalMode::Signed),
        ]);
        let operations = list(choice(&[
            ("key_lifecycle", ApprovalGroup::KeyLifecycle),
            ("trust_anchor", ApprovalGroup::TrustAnchor),
        ]));
        Self {
            mode: reader.take("approvals.mode", modes),
            jwks: reader.take_optional("approvals.jwks", key_set),
            quorum: reader.take("approvals.quorum", whole(1..=8)),
            operations: reader.take("approvals.operations", operations),
        }
    }
}
