//! The edge towards the API server: an AdmissionReview in, the decision asked, a reply out.

mod body;
pub mod review;
mod router;
pub mod surroundings;

pub use router::{Admission, Route, router};
pub use surroundings::Surroundings;
