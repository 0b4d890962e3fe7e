//! Checks over what was read of a cluster. The controller publishes their findings as Events. Pure: the caller reads the
//! objects.

pub mod access;
pub mod binding;
pub mod missed;
pub mod scope;
