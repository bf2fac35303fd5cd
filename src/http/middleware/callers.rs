//! Who calls, and what is kept of each caller.

use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::Request;
use quick_cache::Equivalent;
use quick_cache::sync::Cache;

use crate::domain::ids::{ModuleId, TenantId};
use crate::domain::peer::SpiffeId;
use crate::domain::rate::RateGroup;
use crate::http::server::Connection;

/// How many callers are known at most, or callers and groups: 14 MiB of buckets, the
/// largest of what is kept.
pub(crate) const MOST_CALLERS: usize = 65_536;

/// Who is counted. Nothing of it is read from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Caller<'a> {
    /// The tenant and the module of a validated certificate, however many
    /// certificates, environments and planes they have.
    Peer(&'a TenantId, &'a ModuleId),
    /// An address.
    Address(Ipv4Addr),
    /// The first 64 bits of an IPv6 address: one network has all of the rest to
    /// choose from (RFC 4291 §2.5.1).
    Network([u8; 8]),
    /// Whoever has neither; they share.
    Unknown,
}

impl<'a> Caller<'a> {
    /// Who is at the other end, by what the connection has proved. Tokens are not
    /// asked: checking them is part of what is to be limited.
    pub(crate) fn of(request: &'a Request) -> Self {
        match request.extensions().get::<Connection>() {
            Some(Connection {
                peer: Some(peer), ..
            }) => Self::of_peer(&peer.spiffe_id),
            Some(connection) => Self::of_address(connection.address.ip()),
            None => Self::Unknown,
        }
    }

    /// The caller of this name.
    pub(crate) fn of_peer(name: &'a SpiffeId) -> Self {
        Self::Peer(&name.scope().tenant_id, name.module())
    }

    /// The caller at this address, however the address is written.
    pub(crate) fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::Address(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::Network([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// Something for each of the callers, in bounded memory.
///
/// The table holds a fixed number of them. When it is full a new caller takes the
/// place of one that was not heard of lately. To be forgotten between two requests a
/// caller would have to come under thousands of other addresses or identities in the
/// meantime, each of which is counted already: it gains nothing.
pub(crate) struct CallerTable<T> {
    kept: Cache<OwnedSlot, Arc<T>>,
}

impl<T> CallerTable<T> {
    /// An empty table for so many.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            kept: Cache::new(capacity),
        }
    }

    /// What is kept in this place. Only a new caller allocates, and of two first
    /// requests at once only one makes it.
    pub(crate) fn at(&self, slot: &Slot<'_>, fresh: impl FnOnce() -> T) -> Arc<T> {
        if let Some(kept) = self.kept.get(slot) {
            return kept;
        }
        self.kept
            .get_or_insert_with(&OwnedSlot::from(slot), || {
                Ok::<_, Infallible>(Arc::new(fresh()))
            })
            .unwrap_or_else(|never| match never {})
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}

/// A place in the table: a caller, and the group that is counted apart, if it is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot<'a> {
    pub(crate) caller: Caller<'a>,
    pub(crate) group: Option<RateGroup>,
}

/// The same, kept.
#[derive(Clone, Debug)]
struct OwnedSlot {
    caller: OwnedCaller,
    group: Option<RateGroup>,
}

#[derive(Clone, Debug)]
enum OwnedCaller {
    Peer(TenantId, ModuleId),
    Address(Ipv4Addr),
    Network([u8; 8]),
    Unknown,
}

impl OwnedSlot {
    fn borrowed(&self) -> Slot<'_> {
        Slot {
            caller: match &self.caller {
                OwnedCaller::Peer(tenant, module) => Caller::Peer(tenant, module),
                OwnedCaller::Address(address) => Caller::Address(*address),
                OwnedCaller::Network(network) => Caller::Network(*network),
                OwnedCaller::Unknown => Caller::Unknown,
            },
            group: self.group,
        }
    }
}

impl From<&Slot<'_>> for OwnedSlot {
    fn from(slot: &Slot<'_>) -> Self {
        Self {
            caller: match slot.caller {
                Caller::Peer(tenant, module) => OwnedCaller::Peer(tenant.clone(), module.clone()),
                Caller::Address(address) => OwnedCaller::Address(address),
                Caller::Network(network) => OwnedCaller::Network(network),
                Caller::Unknown => OwnedCaller::Unknown,
            },
            group: slot.group,
        }
    }
}

impl Hash for OwnedSlot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrowed().hash(state);
    }
}

impl PartialEq for OwnedSlot {
    fn eq(&self, other: &Self) -> bool {
        self.borrowed() == other.borrowed()
    }
}

impl Eq for OwnedSlot {}

impl Equivalent<OwnedSlot> for Slot<'_> {
    fn equivalent(&self, kept: &OwnedSlot) -> bool {
        *self == kept.borrowed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Caller<'static> {
        Caller::of_address(address.parse().expect("an address"))
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written_and_a_network_is_one_caller() {
        assert_eq!(at("192.0.2.1"), at("::ffff:192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
        assert_eq!(
            at("2001:db8:0:7::1"),
            at("2001:db8:0:7:ffff:ffff:ffff:ffff")
        );
        assert_ne!(at("2001:db8:0:7::1"), at("2001:db8:0:8::1"));
    }
}
