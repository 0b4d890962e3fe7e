//! The webhook server: reads an AdmissionReview, calls the decision, replies.

mod body;
pub mod review;
mod router;
pub mod surroundings;

pub use router::{Admission, Route, router};
pub use surroundings::Surroundings;
