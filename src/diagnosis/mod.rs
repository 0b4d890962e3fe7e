//! Checks over what was read of a cluster. The controller publishes their findings as Events. Pure: the caller reads the
//! objects.

pub mod access;
pub mod binding;
pub mod check;
pub mod gateway;
pub mod installation;
pub mod missed;
pub mod path;
pub mod rules;
pub mod scope;
pub mod series;
pub mod workload;
