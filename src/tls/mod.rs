//! What the webhook shows to its clients, and what it asks of them: certificates, and the one being served.

pub mod leaf;
pub mod pki;

pub use leaf::CurrentLeaf;
