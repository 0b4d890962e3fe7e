//! A Prometheus to ask: the cluster's, through the API server's proxy, or one on loopback.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{Kubectl, local};

/// Where a Prometheus answers.
#[derive(Clone, Debug)]
pub enum Prometheus {
    /// A pod of this cluster.
    InCluster {
        /// The cluster.
        kubectl: Kubectl,
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
    },
    /// A process on this port of loopback.
    Local(u16),
}

impl Prometheus {
    /// The one that [`crate::Node::install_monitoring`] brings.
    #[must_use]
    pub fn of(kubectl: &Kubectl) -> Self {
        let pod = "prometheus-k8s-0".to_owned();
        Self::InCluster { kubectl: kubectl.clone(), namespace: "monitoring".to_owned(), pod }
    }

    /// The `data` of an answer of its HTTP API.
    ///
    /// # Errors
    /// Where it cannot be asked or does not understand.
    pub fn ask(&self, path: &str) -> Result<Value> {
        let text = match self {
            Self::InCluster { kubectl, namespace, pod } => {
                let proxy = format!("/api/v1/namespaces/{namespace}/pods/{pod}:9090/proxy");
                kubectl.run_with(&["get", "--raw", &format!("{proxy}/api/v1/{path}")], "")?.out
            }
            Self::Local(port) => {
                let answer = local::get(*port, &format!("/api/v1/{path}"))?;
                answer.split_once("\r\n\r\n").context("no answer")?.1.to_owned()
            }
        };
        let answer: Value = serde_json::from_str(&text)?;
        if answer["status"] != "success" {
            bail!("Prometheus: {answer}");
        }
        Ok(answer["data"].clone())
    }

    /// The value of a query that gives one sample; `None` where it gives none.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub fn query(&self, query: &str) -> Result<Option<f64>> {
        let data = self.ask(&format!("query?query={}", escape(query)))?;
        Ok(data["result"][0]["value"][1].as_str().and_then(|value| value.parse().ok()))
    }

    /// A query over a span of time, a sample a second; `start` and `end` are seconds since 1970.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub fn range(&self, query: &str, start: u64, end: u64) -> Result<Value> {
        self.ask(&format!("query_range?query={}&start={start}&end={end}&step=1", escape(query)))
    }

    /// The active targets of one scrape pool.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub fn targets(&self, pool: &str) -> Result<Vec<Value>> {
        let targets = self.ask(&format!("targets?state=active&scrapePool={pool}"))?;
        Ok(targets["activeTargets"].as_array().cloned().unwrap_or_default())
    }
}

/// Percent-encodes what a query string may not hold.
#[must_use]
pub fn escape(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}
