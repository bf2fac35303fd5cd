//! From a client's certificate to an authority in force (RFC 5280 §6).
//!
//! webpki builds and verifies the path: signatures, validity, basic constraints,
//! extended key usage, name constraints and revocation. What it leaves to its
//! caller is here: which anchors may vouch for whom, the anchor's own path length,
//! and the key usage of the authorities in between.
//!
//! Name constraints: webpki applies those on DNS and IP names. It has no notion of
//! constraints on URIs and on directory names and refuses a chain that has them
//! for a name of that kind, so an authority with a URI constraint vouches for no
//! client here. That errs on the safe side.

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use tokio::sync::watch;
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath, anchor_from_trusted_cert,
};

use super::authorities::Authority;
use super::certificate::{AuthorityFacts, Link, Malformed, NoAuthority, authority, link};
use super::refusal::Refusal;
use super::revocation::{Issuer, RevocationList, relevant};
use crate::domain::peer::VouchedBy;
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::ports::trust_plane::{MOST_VOUCHERS, TrustPlane};

/// The most certificates that a client may send above its own. webpki follows six.
const MOST_INTERMEDIATES: usize = 8;

/// The most bytes that all of its certificates may have.
const LARGEST_CHAIN: usize = 64 * 1024;

/// What is in force at a handshake.
pub(super) struct InForce<'a> {
    pub(super) algorithms: &'a [&'static dyn SignatureVerificationAlgorithm],
    pub(super) authorities: &'a [Authority],
    pub(super) revocation: &'a [RevocationList],
    pub(super) trust_plane: &'a dyn TrustPlane,
    pub(super) now: Timestamp,
}

/// What an anchor of the trust plane says while it is in force; `None` for one of
/// the configuration's.
pub(super) type InForceUntil = Option<watch::Receiver<()>>;

/// Whether a client may send so much. Asked before anything is read.
///
/// # Errors
/// [`Refusal::ChainTooLong`].
pub(super) fn check_size(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Refusal> {
    let bytes: usize = intermediates.iter().map(|one| one.len()).sum();
    if intermediates.len() > MOST_INTERMEDIATES || bytes + end_entity.len() > LARGEST_CHAIN {
        return Err(Refusal::ChainTooLong);
    }
    Ok(())
}

/// Verifies that an authority in force vouches for a client of this scope, and
/// says on whose word that is. One of
/// the configuration comes first, since a connection that an anchor of the trust
/// plane vouched for ends with that anchor.
///
/// # Errors
/// [`Refusal`]; of several, the one that tells most.
pub(super) fn verify(
    in_force: &InForce<'_>,
    scope: &Scope,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(VouchedBy, InForceUntil), Refusal> {
    let chain = Chain::read(end_entity, intermediates)?;
    let mut best = Refusal::UnknownAuthority;
    for authority in in_force.authorities {
        if authority.is_valid_at(in_force.now) && chain.names_issuer(&authority.facts.subject) {
            match chain.verify(in_force, &authority.der, &authority.facts) {
                Ok(()) => return Ok((VouchedBy::Platform, None)),
                Err(refusal) => best = telling(best, refusal),
            }
        }
    }
    let vouchers = chain
        .issuers()
        .into_iter()
        .flat_map(|name| in_force.trust_plane.vouchers(name, scope, in_force.now))
        .take(MOST_VOUCHERS);
    for voucher in vouchers {
        let vouched = match authority(&voucher.der) {
            Ok(facts) => {
                let der = CertificateDer::from(&voucher.der[..]);
                chain.verify(in_force, &der, &facts)
            }
            Err(NoAuthority::Malformed) => Err(Refusal::UnknownAuthority),
            Err(_) => Err(Refusal::WrongUsage),
        };
        match vouched {
            Ok(()) => return Ok((voucher.by, Some(voucher.in_force))),
            Err(refusal) => best = telling(best, refusal),
        }
    }
    Err(best)
}

/// Of two refusals the one that says more. That one authority did not sign it
/// says nothing while another may have.
fn telling(one: Refusal, other: Refusal) -> Refusal {
    let says = |refusal| match refusal {
        Refusal::UnknownAuthority => 0,
        Refusal::BadSignature => 1,
        _ => 2,
    };
    if says(other) > says(one) { other } else { one }
}

/// What a client sent.
struct Chain<'a> {
    end_entity: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
    /// Of the end entity, then of those intermediates that read.
    links: Vec<(Link, &'a CertificateDer<'a>)>,
}

impl<'a> Chain<'a> {
    fn read(
        end_entity: &'a CertificateDer<'a>,
        intermediates: &'a [CertificateDer<'a>],
    ) -> Result<Self, Refusal> {
        let own = link(end_entity).map_err(|Malformed| Refusal::Malformed)?;
        let mut links = vec![(own, end_entity)];
        // What does not read leads nowhere, and need not be needed.
        links.extend(
            intermediates
                .iter()
                .filter_map(|der| Some((link(der).ok()?, der))),
        );
        Ok(Self {
            end_entity,
            intermediates,
            links,
        })
    }

    /// The names that its certificates were issued under, each once.
    fn issuers(&self) -> Vec<&[u8]> {
        let mut names: Vec<&[u8]> = Vec::with_capacity(self.links.len());
        for (link, _) in &self.links {
            if !names.contains(&link.issuer.as_slice()) {
                names.push(&link.issuer);
            }
        }
        names
    }

    fn names_issuer(&self, subject: &[u8]) -> bool {
        self.links.iter().any(|(link, _)| link.issuer == subject)
    }

    /// Verifies it against this one anchor. One at a time, so that it is known
    /// which of two with the same name it was.
    fn verify(
        &self,
        in_force: &InForce<'_>,
        anchor: &CertificateDer<'_>,
        facts: &AuthorityFacts,
    ) -> Result<(), Refusal> {
        let trusted = [anchor_from_trusted_cert(anchor).map_err(|_| Refusal::UnknownAuthority)?];
        let end_entity =
            EndEntityCert::try_from(self.end_entity).map_err(|e| Refusal::of_chain(&e))?;
        let lists = relevant(in_force.revocation, &self.issuing(anchor, facts));
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                // An authority without a list revokes nothing.
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let check_path = |path: &VerifiedPath<'_>| self.check_path(path, facts);
        end_entity
            .verify_for_usage(
                in_force.algorithms,
                &trusted,
                self.intermediates,
                unix_time(in_force.now),
                KeyUsage::client_auth(),
                revocation,
                Some(&check_path),
            )
            .map(|_| ())
            .map_err(|error| Refusal::of_chain(&error))
    }

    /// The authorities that may have issued something in it.
    fn issuing<'b>(&'b self, anchor: &'b [u8], facts: &'b AuthorityFacts) -> Vec<Issuer<'b>> {
        let mut issuing = vec![Issuer {
            subject: &facts.subject,
            key_id: facts.key_id.as_deref(),
            der: anchor,
        }];
        issuing.extend(self.links.iter().skip(1).map(|(link, der)| Issuer {
            subject: &link.subject,
            key_id: link.key_id.as_deref(),
            der,
        }));
        issuing
    }

    fn check_path(
        &self,
        path: &VerifiedPath<'_>,
        anchor: &AuthorityFacts,
    ) -> Result<(), webpki::Error> {
        let mut below = 0;
        for intermediate in path.intermediate_certificates() {
            let der = intermediate.der();
            let may_sign = self
                .links
                .iter()
                .any(|(link, sent)| **sent == der && link.may_sign);
            if !may_sign {
                return Err(webpki::Error::EndEntityUsedAsCa);
            }
            below += 1;
        }
        // RFC 5280 §6.1.1 leaves it open whether an anchor's own constraint counts;
        // whoever wrote it there meant it.
        if anchor.path_length.is_some_and(|most| below > most) {
            return Err(webpki::Error::PathLenConstraintViolated);
        }
        Ok(())
    }
}

fn unix_time(now: Timestamp) -> UnixTime {
    let microseconds = u64::try_from(now.microseconds()).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests;
