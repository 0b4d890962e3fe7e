//! The webhook's certificate, and the certificates that it accepts from clients.

pub mod leaf;
pub mod pki;

pub use leaf::CurrentLeaf;
