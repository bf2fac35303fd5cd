//! The `kms` binary.

fn main() {}
