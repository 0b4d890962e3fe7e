//! The annotations that people, not gwmon, have set on a pod template, as recorded in
//! `kubectl.kubernetes.io/last-applied-configuration` or `managedFields`. Anybody can write these, so only known names are
//! kept.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::annotations::{COPIED, VOCABULARY};
use crate::kubernetes::Annotations;
use crate::kubernetes::bounded::{self, ENTRIES};

pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// gwmon's annotations on the template of this workload that are somebody's own.
pub(super) fn claimed(json: &str, annotations: Option<&Annotations>) -> BTreeSet<&'static str> {
    let applied = annotations.and_then(|annotations| annotations.get(LAST_APPLIED));
    let applied = applied.and_then(|text| serde_json::from_str::<Applied>(text).ok());
    let managed = serde_json::from_str::<Workload>(json).map_or_else(|_| vec![], |workload| workload.metadata.fields);
    let managed = managed.into_iter().map(|entry| entry.fields.spec.template.metadata.annotations.0);
    let applied = applied.map(|applied| applied.spec.template.metadata.annotations.0);
    // A manifest from `kubectl get` has [`COPIED`] too.
    applied.into_iter().chain(managed).filter(|names| !names.contains(COPIED)).flatten().collect()
}

#[derive(Deserialize)]
struct Workload {
    metadata: Managed,
}

#[derive(Deserialize)]
struct Managed {
    #[serde(rename = "managedFields", default, deserialize_with = "bounded::list::<_, _, ENTRIES>")]
    fields: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "fieldsV1", default)]
    fields: Fields,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    #[serde(rename = "f:spec")]
    spec: FieldsOfSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FieldsOfSpec {
    #[serde(rename = "f:template")]
    template: FieldsOfTemplate,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FieldsOfTemplate {
    #[serde(rename = "f:metadata")]
    metadata: FieldsOfMetadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FieldsOfMetadata {
    #[serde(rename = "f:annotations")]
    annotations: Names,
}

#[derive(Deserialize)]
struct Applied {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    template: Template,
}

#[derive(Deserialize)]
struct Template {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: Names,
}

/// The keys of a map, as far as they are gwmon's.
#[derive(Default)]
struct Names(BTreeSet<&'static str>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_unit<E>(self) -> Result<Names, E> {
                Ok(Names::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = BTreeSet::new();
                while let Some((key, IgnoredAny)) = map.next_entry::<Cow<str>, IgnoredAny>()? {
                    let key = key.strip_prefix("f:").unwrap_or(&key);
                    let known = VOCABULARY.iter().map(|known| known.name).chain([COPIED]);
                    names.extend(known.filter(|known| *known == key));
                }
                Ok(Names(names))
            }
        }
        d.deserialize_any(Keys)
    }
}
