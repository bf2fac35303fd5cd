//! Where a key lives: tenant, environment and plane. Every look-up carries one.

use super::ids::TenantId;
use super::wire::text_form;

/// The deployment stage a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Environment {
    /// `dev`
    Dev,
    /// `staging`
    Staging,
    /// `prod`
    Prod,
}

impl Environment {
    /// Every stage.
    pub const ALL: [Self; 3] = [Self::Dev, Self::Staging, Self::Prod];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text)
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Staging => "staging",
            Self::Prod => "prod",
        }
    }
}

text_form!(Environment, "one of dev, staging, prod");

/// The part of the platform a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Plane {
    /// `laptop`
    Laptop,
    /// `tenant`
    Tenant,
    /// `product`
    Product,
    /// `shared`
    Shared,
}

impl Plane {
    /// Every part.
    pub const ALL: [Self; 4] = [Self::Laptop, Self::Tenant, Self::Product, Self::Shared];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plane| plane.as_str() == text)
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Laptop => "laptop",
            Self::Tenant => "tenant",
            Self::Product => "product",
            Self::Shared => "shared",
        }
    }
}

text_form!(Plane, "one of laptop, tenant, product, shared");

/// The compartment a key lives in. A key of another scope does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// Whose key.
    pub tenant_id: TenantId,
    /// Of which stage.
    pub environment: Environment,
    /// In which plane.
    pub plane: Plane,
}
