//! The edge towards the API server: an AdmissionReview in, the decision asked, a reply out.

pub mod review;
mod router;

pub use router::{Admission, Route, router};
