//! `AdmissionReview`, in and out. Own types: the patch is base64 and the object stays raw JSON.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::injection::patch::{Patch, quoted};
use crate::reason::{Finding, Reason, cut};

/// An admission request. The object is not decoded here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// Must come back in the reply.
    pub uid: String,
    /// The kind of the object.
    #[serde(default)]
    pub kind: Kind,
    /// `CREATE`, `UPDATE`, …
    #[serde(default)]
    pub operation: String,
    /// The only namespace to trust: the object's own may be empty (R21).
    #[serde(default)]
    pub namespace: String,
    /// Empty for a pod that is still to be named.
    #[serde(default)]
    pub name: String,
    /// True if nothing will be stored. gwmon's answer is the same: it has no side effects.
    #[serde(default)]
    pub dry_run: Option<bool>,
    /// The object; `null` for a `DELETE`.
    #[serde(borrow)]
    pub object: Option<&'a RawValue>,
    /// The object as it was; `null` for a `CREATE`.
    #[serde(borrow)]
    pub old_object: Option<&'a RawValue>,
}

/// `request.kind`.
#[derive(Debug, Default, Deserialize)]
pub struct Kind {
    /// API group; empty for the core group.
    #[serde(default)]
    pub group: String,
    /// The kind's name.
    #[serde(default)]
    pub kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

const API_VERSIONS: [&str; 2] = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"];

/// A body that is no usable review.
#[derive(Debug, PartialEq, Eq)]
pub struct BadReview {
    /// The uid, if it could be read: the API server then gets a reply, allowed, with the reason.
    pub uid: Option<String>,
    /// The error.
    pub refusal: Finding,
}

impl<'a> Request<'a> {
    /// Reads a review, and the API version in which to reply.
    ///
    /// # Errors
    /// [`BadReview`]: not JSON, not a review, no uid.
    pub fn parse(body: &'a [u8]) -> Result<(Self, &'static str), BadReview> {
        let review: Review = serde_json::from_slice(body).map_err(|error| {
            BadReview::of(body, Reason::MalformedObject, format!("not an AdmissionReview: {error}"))
        })?;
        let Some(version) =
            API_VERSIONS.into_iter().find(|v| *v == review.api_version && review.kind == "AdmissionReview")
        else {
            let what =
                format!("{} {} is not an AdmissionReview of {}", review.api_version, review.kind, API_VERSIONS[0]);
            return Err(BadReview::of(body, Reason::UnexpectedObject, what));
        };
        match review.request {
            Some(request) if !request.uid.is_empty() => Ok((request, version)),
            Some(_) => Err(BadReview::of(body, Reason::MalformedObject, "request.uid is empty".to_owned())),
            None => Err(BadReview::of(body, Reason::MalformedObject, "the AdmissionReview has no request".to_owned())),
        }
    }
}

impl BadReview {
    /// Describes a body that may be truncated.
    #[must_use]
    pub fn of(body: &[u8], reason: Reason, detail: String) -> Self {
        Self { uid: uid_of(body), refusal: Finding::new(reason, detail) }
    }
}

/// Finds `request.uid` in a body that is otherwise unreadable: cut off, nested too deeply, of a wrong shape.
/// The API server writes it near the front.
fn uid_of(body: &[u8]) -> Option<String> {
    /// Walks one path of keys and puts the string at its end into `found`, which stays when the rest fails.
    struct Find<'p> {
        path: &'p [&'p str],
        found: &'p mut Option<String>,
    }
    impl<'de> DeserializeSeed<'de> for Find<'_> {
        type Value = ();
        fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
            if self.path.is_empty() {
                *self.found = Some(String::deserialize(d)?);
                return Ok(());
            }
            d.deserialize_map(self)
        }
    }
    impl<'de> Visitor<'de> for Find<'_> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<String>()? {
                if key == self.path[0] {
                    map.next_value_seed(Find { path: &self.path[1..], found: self.found })?;
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(())
        }
    }
    let mut found = None;
    // The error is expected; what was found before it counts.
    let _ = Find { path: &["request", "uid"], found: &mut found }
        .deserialize(&mut serde_json::Deserializer::from_slice(body));
    found.filter(|uid| !uid.is_empty())
}

/// An admission response. There is no way to say "not allowed": telemetry never stops traffic.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    api_version: &'static str,
    uid: String,
    patch: Option<String>,
    warnings: Vec<String>,
}

impl Reply {
    /// Admits the object as it is.
    #[must_use]
    pub fn allow(uid: &str) -> Self {
        Self { api_version: API_VERSIONS[0], uid: uid.to_owned(), patch: None, warnings: vec![] }
    }

    /// Replies in the version of the request.
    #[must_use]
    pub fn version(mut self, version: &'static str) -> Self {
        self.api_version = version;
        self
    }

    /// Changes the object; an empty patch is none.
    #[must_use]
    pub fn patch(mut self, patch: &Patch) -> Self {
        self.patch = (!patch.is_empty()).then(|| patch.to_json());
        self
    }

    /// Adds a warning, which kubectl prints.
    #[must_use]
    pub fn warn(mut self, refusal: &Finding) -> Self {
        // The API server cuts a warning after 256 characters; the `…` shows it.
        self.warnings.push(cut(&format!("gwmon: {refusal}"), 255).into_owned());
        self
    }

    /// The `AdmissionReview`. Written by hand, since the patch is most of it: base64 goes straight into the text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let patch_length = self.patch.as_ref().map_or(0, |patch| patch.len() * 4 / 3);
        let mut json = String::with_capacity(patch_length + 256);
        json.extend([r#"{"apiVersion":""#, self.api_version, r#"","kind":"AdmissionReview","response":{"uid":"#]);
        json.extend([&quoted(&self.uid), r#","allowed":true"#]);
        if let Some(patch) = &self.patch {
            // The type with a patch, and only with one: the API server refuses either alone.
            json.push_str(r#","patchType":"JSONPatch","patch":""#);
            BASE64_STANDARD.encode_string(patch, &mut json);
            json.push('"');
        }
        if !self.warnings.is_empty() {
            let warnings: Vec<_> = self.warnings.iter().map(|warning| quoted(warning)).collect();
            json.extend([r#","warnings":["#, &warnings.join(","), "]"]);
        }
        json.push_str("}}");
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_found_in_front_of_anything_broken() {
        for rest in ["", ",", r#", "object": {"spec": [[[["#, r#", "kind": 7}}"#, r#", "object": nonsense"#] {
            let body = format!(
                r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"u-1"{rest}"#
            );
            assert_eq!(uid_of(body.as_bytes()).as_deref(), Some("u-1"), "{body}");
        }
        for body in [
            "",
            "[]",
            "{}",
            r#"{"request":{"uid":7}}"#,
            r#"{"request":{"object":{"uid":"inner"}}}"#,
            r#"{"uid":"outer"}"#,
        ] {
            assert_eq!(uid_of(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn a_patch_is_base64_and_an_empty_one_is_none() {
        let mut patch = Patch::default();
        patch.add(&["a"], "1");
        let read = |reply: Reply| serde_json::from_str::<serde_json::Value>(&reply.to_json()).unwrap();
        let reply = read(Reply::allow("u").patch(&patch));
        assert_eq!(reply["response"]["patchType"], "JSONPatch");
        let decoded = BASE64_STANDARD.decode(reply["response"]["patch"].as_str().unwrap()).unwrap();
        assert_eq!(String::from_utf8(decoded).unwrap(), r#"[{"op":"add","path":"/a","value":1}]"#);

        let reply = read(Reply::allow("u").patch(&Patch::default()));
        assert_eq!(reply["response"], serde_json::json!({"uid": "u", "allowed": true}));
    }

    #[test]
    fn a_long_warning_is_cut_visibly() {
        let reply = Reply::allow("u").warn(&Finding::new(Reason::NoGateway, "ü".repeat(500)));
        assert_eq!(reply.warnings[0].chars().count(), 256);
        assert!(reply.warnings[0].ends_with('…'));
    }
}
