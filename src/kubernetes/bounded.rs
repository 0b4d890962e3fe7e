//! Lists and maps with limits above any real pod's. The API server calls mutating webhooks before it validates, so an object
//! may have any number of entries; gwmon stops reading at the limit.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Containers of a pod, of each kind. The largest known have some twenty.
pub(crate) const CONTAINERS: usize = 100;
/// Ports of a container: a range of them, written out.
pub(crate) const PORTS: usize = 4096;
/// Environment variables of a container.
pub(crate) const VARIABLES: usize = 4096;
/// Entries of every other list or map.
pub(crate) const ENTRIES: usize = 1024;
/// All keys and values of a map: more than the API server takes for all annotations of an object (256 KiB).
const MAP_BYTES: usize = 512 << 10;

/// The maximum size of YAML inside a pod: more than any configuration in an argument or an annotation has.
pub(crate) const YAML_BYTES: usize = 256 << 10;

/// The message about anything longer.
pub(crate) const TOO_LARGE: &str = "more than any real pod has";

/// A list; empty where it is absent.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    d: D,
) -> Result<Vec<T>, D::Error> {
    list_if_any::<D, T, MOST>(d).map(Option::unwrap_or_default)
}

/// A list; `None` where it is absent.
pub(crate) fn list_if_any<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    d: D,
) -> Result<Option<Vec<T>>, D::Error> {
    struct List<T, const MOST: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a sequence")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut read: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = read.next_element()? {
                if list.len() == MOST {
                    return Err(A::Error::custom(format_args!("it has over {MOST} entries, {TOO_LARGE}")));
                }
                list.push(item);
            }
            Ok(list)
        }
    }
    optional(d, List::<T, MOST>(PhantomData))
}

/// Labels or annotations; `None` where there are none.
pub(crate) fn map_if_any<'de, D: Deserializer<'de>>(d: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    struct Map;
    impl<'de> Visitor<'de> for Map {
        type Value = BTreeMap<String, String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut read: A) -> Result<Self::Value, A::Error> {
            let (mut map, mut bytes) = (BTreeMap::new(), 0);
            while let Some((key, value)) = read.next_entry::<String, String>()? {
                bytes += key.len() + value.len();
                if map.len() == ENTRIES || bytes > MAP_BYTES {
                    let kib = MAP_BYTES >> 10;
                    return Err(A::Error::custom(format_args!(
                        "it has over {ENTRIES} entries or {kib} KiB, {TOO_LARGE}"
                    )));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    optional(d, Map)
}

/// A value that is absent or `null`, or is visited.
fn optional<'de, D: Deserializer<'de>, V: Visitor<'de>>(d: D, visitor: V) -> Result<Option<V::Value>, D::Error> {
    struct Maybe<V>(V);
    impl<'de, V: Visitor<'de>> Visitor<'de> for Maybe<V> {
        type Value = Option<V::Value>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.expecting(f)
        }
        fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
            d.deserialize_any(self.0).map(Some)
        }
    }
    d.deserialize_option(Maybe(visitor))
}

#[cfg(test)]
mod tests {
    use super::super::pod::Pod;
    use crate::reason::Reason;

    #[test]
    fn what_is_longer_than_any_real_one_is_not_read_to_its_end() {
        let many = |entry: &str, count: usize| vec![entry; count].join(",");
        let annotations = |count: usize| (0..count).map(|i| format!("\"a{i}\":\"\"")).collect::<Vec<_>>().join(",");
        for (pod, field) in [
            (format!(r#"{{"spec":{{"containers":[{}]}}}}"#, many(r#"{"name":""}"#, 101)), "spec.containers"),
            (format!(r#"{{"spec":{{"volumes":[{}]}}}}"#, many(r#"{"name":""}"#, 1025)), "spec.volumes"),
            (
                format!(r#"{{"spec":{{"initContainers":[{{"name":"","args":[{}]}}]}}}}"#, many("\"\"", 1025)),
                "spec.initContainers[0].args",
            ),
            (
                format!(
                    r#"{{"spec":{{"containers":[{{"name":"","ports":[{}]}}]}}}}"#,
                    many(r#"{"containerPort":1}"#, 4097)
                ),
                "spec.containers[0].ports",
            ),
            (
                format!(r#"{{"metadata":{{"annotations":{{{}}}}},"spec":{{}}}}"#, annotations(1025)),
                "metadata.annotations",
            ),
            (
                format!(r#"{{"metadata":{{"labels":{{"a":"{}"}}}},"spec":{{}}}}"#, "x".repeat(600 << 10)),
                "metadata.labels",
            ),
        ] {
            let refusal = Pod::parse(&pod).unwrap_err();
            assert_eq!(refusal.reason, Reason::TooLarge, "{field}");
            assert!(refusal.detail.starts_with(field), "{field}: {}", refusal.detail);
        }
        let full = format!(r#"{{"metadata":{{"annotations":{{{}}}}},"spec":{{"volumes":null}}}}"#, annotations(1024));
        assert_eq!(Pod::parse(&full).unwrap().metadata.annotations.unwrap().len(), 1024);
    }
}
