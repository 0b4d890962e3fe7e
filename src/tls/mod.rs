//! How the webhook speaks TLS: certificates, the one being served, and the server.

pub mod leaf;
pub mod pki;
pub mod serve;

pub use leaf::CurrentLeaf;
pub use serve::https;
