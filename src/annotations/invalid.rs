//! The mistakes that a value can have, one variant each. Every message says what is wrong and how to fix it.

use thiserror::Error;

use crate::kubernetes::VersionError;
use crate::kubernetes::labels::LabelError;
use crate::kubernetes::quantity::{Quantity, QuantityError};
use crate::reason::{cut, shown};

/// Why an annotation's value is not valid. The text follows the value in a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidValue {
    #[error("is empty; set a value or remove the annotation")]
    Empty,
    #[error("is not one of {}", .0.join(", "))]
    UnknownWord(&'static [&'static str]),
    /// A word of an earlier version of gwmon.
    #[error("was renamed; use \"{0}\"")]
    Renamed(&'static str),
    #[error("is not a number; use a port from 1 to 65535")]
    PortNotANumber,
    #[error("is outside the range of ports; use 1 to 65535")]
    PortOutOfRange,
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error(transparent)]
    Duration(#[from] DurationError),
    #[error("is not a Prometheus; use namespace/name, or all")]
    NotATarget,
    #[error("lacks the namespace; use namespace/{0}, or all")]
    TargetWithoutNamespace(String),
    #[error("holds a label that is not valid: {0}")]
    Label(#[from] LabelError),
    #[error("sets label {0}, which only gwmon may set; remove it")]
    ReservedLabel(String),
    #[error("has {count} labels; use at most {most}")]
    TooManyLabels { count: usize, most: usize },
    #[error(transparent)]
    Resources(#[from] ResourcesError),
}

/// Why a text is not a Prometheus duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    #[error("has no unit; use {0}s for seconds")]
    NoUnit(String),
    #[error("is zero; use a longer duration, such as 15s")]
    Zero,
    #[error("is negative; use a duration such as 15s")]
    Negative,
    #[error("has a fraction; use whole numbers, such as 1m30s or 500ms")]
    Fraction,
    #[error("has its units out of order; use y, w, d, h, m, s, ms, each at most once, such as 1m30s")]
    UnitOrder,
    #[error("is too long; use a duration such as 15s")]
    TooLong,
    #[error("is not a duration; use one such as 15s or 1m30s")]
    NotADuration,
}

/// Why a text does not set requests and limits.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResourcesError {
    #[error("lacks = in {}; use cpu=REQUEST/LIMIT,memory=REQUEST/LIMIT", shown(.0))]
    NoEquals(String),
    #[error("names the resource {}; use cpu or memory", shown(.0))]
    UnknownResource(String),
    #[error("sets {0} twice; set it once")]
    Twice(&'static str),
    #[error("sets neither a request nor a limit for {0}; use {0}=REQUEST/LIMIT")]
    NoAmount(&'static str),
    #[error("sets more than a request and a limit for {0}; use {0}=REQUEST/LIMIT")]
    TooManyAmounts(&'static str),
    #[error("sets {resource} to {}, which {error}; use an amount such as {}", shown(&cut(.amount, 24)), example(.resource))]
    Amount { resource: &'static str, amount: String, error: QuantityError },
    #[error("sets {0} to zero, which Kubernetes takes for no limit; use more than zero")]
    Zero(&'static str),
    #[error("sets memory to {0}, a fraction of a byte; for mebibytes use the suffix Mi, such as 128Mi")]
    FractionOfAByte(String),
    #[error(
        "requests {request} of {resource}, more than its limit of {limit}; use {resource}={fix}/{fix}, for example"
    )]
    RequestAboveLimit { resource: &'static str, request: String, limit: String, fix: Quantity },
    #[error("limits memory to {limit}; the exporter needs at least {least}: memory={request}/{least}")]
    MemoryLimitTooSmall { request: Quantity, limit: Quantity, least: Quantity },
}

fn example(resource: &str) -> &'static str {
    if resource == "cpu" { "100m" } else { "64Mi" }
}

#[cfg(test)]
mod tests {
    use crate::annotations::{INJECT, Settings};
    use crate::kubernetes::Annotations;
    use crate::reason::{Reason, shown};

    /// Key, value, and the message that follows both.
    const TABLE: &[(&str, &str, &str)] = &[
        ("inject", "yes", "is not one of \"true\", \"false\""),
        ("inject", "True", "is not one of \"true\", \"false\""),
        ("inject", "1", "is not one of \"true\", \"false\""),
        ("inject", "", "is not one of \"true\", \"false\""),
        (
            "gateway",
            "caddy",
            "is not one of ambassador, appmesh, consul, contour, envoy-gateway, gloo, haproxy, istio, kgateway, kong, nginx, osm, traefik, envoy",
        ),
        (
            "gateway",
            "Envoy",
            "is not one of ambassador, appmesh, consul, contour, envoy-gateway, gloo, haproxy, istio, kgateway, kong, nginx, osm, traefik, envoy",
        ),
        ("gateway", "", "is empty; set a value or remove the annotation"),
        ("container", "", "is empty; set a value or remove the annotation"),
        ("container", "  ", "is empty; set a value or remove the annotation"),
        ("mode", "push", "is not one of statsd, scrape"),
        ("mode", "native", "was renamed; use \"scrape\""),
        ("mode", "prometheus", "is not one of statsd, scrape"),
        ("statsd-port", "0", "is outside the range of ports; use 1 to 65535"),
        ("statsd-port", "8125/udp", "is not a number; use a port from 1 to 65535"),
        ("statsd-port", "", "is empty; set a value or remove the annotation"),
        ("metrics-port", "65536", "is outside the range of ports; use 1 to 65535"),
        ("metrics-port", "-1", "is outside the range of ports; use 1 to 65535"),
        ("metrics-port", "http", "is not a number; use a port from 1 to 65535"),
        ("metrics-port", "9102.0", "is not a number; use a port from 1 to 65535"),
        ("metrics-port", "99999999999999999999", "is outside the range of ports; use 1 to 65535"),
        ("envoy-version", "latest", "is not a version; use major.minor, such as 1.34"),
        ("envoy-version", "1", "lacks the minor version; use major.minor, such as 1.0"),
        ("envoy-version", "v2", "lacks the minor version; use major.minor, such as 2.0"),
        ("envoy-version", "1.x", "is not a version; use major.minor, such as 1.34"),
        ("gateway-version", "three", "is not a version; use major.minor, such as 1.34"),
        ("gateway-version", "3", "lacks the minor version; use major.minor, such as 3.0"),
        ("relay", "yes", "is not one of true, false"),
        ("relay", "TRUE", "is not one of true, false"),
        ("relay", "", "is empty; set a value or remove the annotation"),
        ("profile", "seconds", "is not one of envoy, bakins"),
        ("profile", "Bakins", "is not one of envoy, bakins"),
        ("sidecar", "init", "is not one of native, regular"),
        ("sidecar", "container", "was renamed; use \"regular\""),
        ("sidecar", "auto", "is not one of native, regular"),
        ("discovery", "none", "is not one of monitor, annotations, both"),
        ("discovery", "servicemonitor", "is not one of monitor, annotations, both"),
        ("discovery", "monitor,annotations", "is not one of monitor, annotations, both"),
        ("prometheus", "k8s", "lacks the namespace; use namespace/k8s, or all"),
        ("prometheus", "monitoring/", "is not a Prometheus; use namespace/name, or all"),
        ("prometheus", "/k8s", "is not a Prometheus; use namespace/name, or all"),
        ("prometheus", "a/b/c", "is not a Prometheus; use namespace/name, or all"),
        ("prometheus", "/", "is not a Prometheus; use namespace/name, or all"),
        (
            "monitor-labels",
            "release",
            "holds a label that is not valid: \"release\" lacks =; use key=value, such as release=prometheus",
        ),
        (
            "monitor-labels",
            "=prometheus",
            "holds a label that is not valid: \"\" is not a key: letters, digits, -, _ and ., 63 characters at most, after an optional domain and /",
        ),
        (
            "monitor-labels",
            "team=a b",
            "holds a label that is not valid: \"a b\" is not a value: letters, digits, -, _ and ., 63 characters at most",
        ),
        (
            "monitor-labels",
            "-team=a",
            "holds a label that is not valid: \"-team\" is not a key: letters, digits, -, _ and ., 63 characters at most, after an optional domain and /",
        ),
        ("monitor-labels", "team=a,team=b", "holds a label that is not valid: the key team is given twice"),
        ("monitor-labels", ",", "is empty; set a value or remove the annotation"),
        (
            "monitor-labels",
            "gwmon.io/metrics-for=x",
            "sets label gwmon.io/metrics-for, which only gwmon may set; remove it",
        ),
        (
            "monitor-labels",
            "a0=b,a1=b,a2=b,a3=b,a4=b,a5=b,a6=b,a7=b,a8=b,a9=b,a10=b,a11=b,a12=b,a13=b,a14=b,a15=b,a16=b,a17=b,a18=b,a19=b,a20=b,a21=b,a22=b,a23=b,a24=b,a25=b,a26=b,a27=b,a28=b,a29=b,a30=b,a31=b,a32=b",
            "has 33 labels; use at most 32",
        ),
        ("interval", "15", "has no unit; use 15s for seconds"),
        ("interval", "0s", "is zero; use a longer duration, such as 15s"),
        ("interval", "0", "is zero; use a longer duration, such as 15s"),
        ("interval", "1s1m", "has its units out of order; use y, w, d, h, m, s, ms, each at most once, such as 1m30s"),
        ("interval", "-5s", "is negative; use a duration such as 15s"),
        ("interval", "1.5m", "has a fraction; use whole numbers, such as 1m30s or 500ms"),
        ("interval", "soon", "is not a duration; use one such as 15s or 1m30s"),
        ("interval", "15 s", "is not a duration; use one such as 15s or 1m30s"),
        ("interval", "99999999999999999999s", "is too long; use a duration such as 15s"),
        ("interval", "15sec", "is not a duration; use one such as 15s or 1m30s"),
        (
            "resources",
            "cpu=501m",
            "requests 501m of cpu, more than its limit of 500m (the default); use cpu=501m/501m, for example",
        ),
        ("resources", "memory=8Mi/8Mi", "limits memory to 8Mi; the exporter needs at least 32Mi: memory=8Mi/32Mi"),
        (
            "resources",
            "cpu=1e3m",
            "sets cpu to \"1e3m\", which has both an exponent and a suffix; use an amount such as 100m",
        ),
        (
            "resources",
            "cpu=0.0001",
            "sets cpu to \"0.0001\", which is finer than a thousandth, the finest amount that Kubernetes allows; use an amount such as 100m",
        ),
        (
            "resources",
            "memory=128m/256Mi",
            "sets memory to \"128m\", a fraction of a byte; for mebibytes use the suffix Mi, such as 128Mi",
        ),
        ("resources", "cpu=lots", "sets cpu to \"lots\", which has no number; use an amount such as 100m"),
        ("resources", "cpu", "lacks = in \"cpu\"; use cpu=REQUEST/LIMIT,memory=REQUEST/LIMIT"),
        ("resources", "disk=1Gi/1Gi", "names the resource \"disk\"; use cpu or memory"),
        ("resources", "memory=0/64Mi", "sets memory to zero, which Kubernetes takes for no limit; use more than zero"),
        ("resources", "cpu=/0", "sets cpu to zero, which Kubernetes takes for no limit; use more than zero"),
        ("resources", "cpu=-1", "sets cpu to \"-1\", which is negative; use an amount such as 100m"),
        ("resources", "cpu=50m/500m/1", "sets more than a request and a limit for cpu; use cpu=REQUEST/LIMIT"),
        ("resources", "cpu=1/2,cpu=1", "sets cpu twice; set it once"),
        ("resources", "memory=", "sets neither a request nor a limit for memory; use memory=REQUEST/LIMIT"),
        (
            "resources",
            "memory=64mb",
            "sets memory to \"64mb\", which has an unknown suffix; use an amount such as 64Mi",
        ),
        (
            "resources",
            "cpu=500m/50m",
            "requests 500m of cpu, more than its limit of 50m; use cpu=500m/500m, for example",
        ),
        (
            "resources",
            "cpu=/10m",
            "requests 50m (the default) of cpu, more than its limit of 10m; use cpu=10m/10m, for example",
        ),
        (
            "resources",
            "memory=1Gi",
            "requests 1Gi of memory, more than its limit of 192Mi (the default); use memory=1Gi/1Gi, for example",
        ),
        (
            "resources",
            "cpu=1;memory=1Gi",
            "sets cpu to \"1;memory=1Gi\", which has an unknown suffix; use an amount such as 100m",
        ),
        ("resources", "cpu:50m", "lacks = in \"cpu:50m\"; use cpu=REQUEST/LIMIT,memory=REQUEST/LIMIT"),
        (
            "resources",
            "memory=1.2.3Mi",
            "sets memory to \"1.2.3Mi\", which is not a number; use an amount such as 64Mi",
        ),
        (
            "resources",
            "memory=999999999999999999999999999999Ei",
            "sets memory to \"999999999999999999999999…\", which is too large; use an amount such as 64Mi",
        ),
        (
            "resources",
            "memory=0.5/64Mi",
            "sets memory to \"0.5\", a fraction of a byte; for mebibytes use the suffix Mi, such as 128Mi",
        ),
        (
            "resources",
            "memory=/16Mi",
            "requests 32Mi (the default) of memory, more than its limit of 16Mi; use memory=32Mi/32Mi, for example",
        ),
        (
            "monitor-labels",
            "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk=v",
            "holds a label that is not valid: \"kkkkkkkkkkkkkkkkkkkkkkkk…\" is not a key: letters, digits, -, _ and ., 63 characters at most, after an optional domain and /",
        ),
        ("interval", "500ms1s", "is not a duration; use one such as 15s or 1m30s"),
        (
            "metrics-port",
            "99999999999999999999999999999999999999999999",
            "is outside the range of ports; use 1 to 65535",
        ),
    ];

    #[test]
    fn each_mistake_has_its_own_message() {
        for (key, value, message) in TABLE {
            let pairs = [(INJECT.to_owned(), "true".to_owned()), (format!("gwmon.io/{key}"), (*value).to_owned())];
            let finding = Settings::parse(&Annotations::from(pairs)).expect_err(value);
            assert_eq!(finding.reason, Reason::InvalidAnnotation, "{key}: {value}");
            assert_eq!(finding.detail, format!("gwmon.io/{key}: {} {message}", shown(value)));
            // Kubernetes truncates a warning at 256 characters.
            assert!(finding.to_string().chars().count() <= 256, "{finding}");
        }
    }
}
