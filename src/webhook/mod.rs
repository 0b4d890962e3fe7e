//! The webhook server: reads an AdmissionReview, calls the decision, replies.

pub mod admission_state;
mod body;
pub mod review;
mod router;

pub use admission_state::AdmissionState;
pub use router::{Admission, Route, router};
