//! Who may do what.
//!
//! So far: the key of administrators. A secret is kept as its hash, is compared in constant time,
//! and is never printed.

mod admin_key;

pub use admin_key::{ADMIN_KEY_MIN, AdminKey};
