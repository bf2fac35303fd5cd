//! What the writer looked up and need not look up again: nobody else changes it. Knows
//! no SQL.

use std::collections::HashMap;
use std::hash::Hash;

use crate::domain::ids::KeyId;
use crate::domain::scope::Scope;

/// How many of each are remembered, at most: some megabytes.
const MOST: usize = 131_072;

/// What is durable of it.
#[derive(Debug, Default)]
pub(super) struct Known {
    scopes: HashMap<Scope, i64>,
    versions: HashMap<KeyId, u64>,
}

impl Known {
    /// The number of a scope.
    pub(super) fn scope(&self, scope: &Scope) -> Option<i64> {
        self.scopes.get(scope).copied()
    }

    /// The version of a key's record.
    pub(super) fn version(&self, key_id: KeyId) -> Option<u64> {
        self.versions.get(&key_id).copied()
    }

    /// Remembers what a batch has looked up or changed, once it is durable.
    pub(super) fn remember(
        &mut self,
        scopes: HashMap<Scope, i64>,
        versions: impl IntoIterator<Item = (KeyId, u64)>,
    ) {
        extend(&mut self.scopes, scopes);
        extend(&mut self.versions, versions);
    }

    /// Forgets everything.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

fn extend<K: Hash + Eq, V>(known: &mut HashMap<K, V>, new: impl IntoIterator<Item = (K, V)>) {
    for (name, value) in new {
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_bounded_and_the_newest_holds() {
        let mut known = Known::default();
        let key_id = KeyId::generate();
        known.remember(HashMap::new(), [(key_id, 1)]);
        known.remember(HashMap::new(), [(key_id, 2)]);
        assert_eq!(known.version(key_id), Some(2));
        known.remember(
            HashMap::new(),
            (0..2 * MOST).map(|_| (KeyId::generate(), 1)),
        );
        assert!((1..=MOST).contains(&known.versions.len()));
        known.forget();
        assert!(known.versions.is_empty());
    }
}
