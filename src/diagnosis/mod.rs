//! Checks over what was read of a cluster. The controller publishes what they find as Events; a command prints it. Pure: who
//! calls them does the reading.

pub mod access;
pub mod binding;
pub mod missed;
pub mod scope;
