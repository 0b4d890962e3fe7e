//! What the webhook is sent: whatever it is, it is answered, no object is refused, and a patch can be applied.
#![no_main]

use std::sync::{Arc, LazyLock};

use gwmon::config::Config;
use gwmon::injection;
use gwmon::metrics::Metrics;
use gwmon::webhook::review::Request;
use gwmon::webhook::{Admission, Route};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static ADMISSION: LazyLock<Admission> =
    LazyLock::new(|| Admission::new(Config::default(), Arc::default(), Metrics::new().0));

fuzz_target!(|body: &[u8]| {
    for route in [Route::Pods, Route::Workloads, Route::LabelledNamespaces] {
        let Ok(reply) = ADMISSION.review(route, body) else { continue };
        let reply: Value = serde_json::from_str(&reply.to_json()).expect("a reply that is no JSON");
        assert_eq!(reply["response"]["allowed"], true);
        let (request, _) = Request::parse(body).expect("a review that was answered");
        if let (Some(object), true) = (request.object, reply["response"]["patch"].is_string()) {
            let object = object.get();
            let config = Config::default();
            let patch = match route {
                Route::Pods => injection::decide(&config, &[], object).injection().map(|injection| injection.patch),
                Route::LabelledNamespaces => {
                    injection::decide_by_namespace(&config, &[], object).injection().map(|injection| injection.patch)
                }
                Route::Workloads => injection::workload::decide(&config, &[], object).map(|change| change.patch),
            };
            let operations = patch.expect("a patch that was sent").to_operations().expect("operations");
            // What serde_json's own reader cannot hold, such as a nesting of 200, the API server could not send.
            if let Ok(mut object) = serde_json::from_str::<Value>(object) {
                json_patch::patch(&mut object, &operations).expect("a patch that applies");
            }
        }
    }
});
