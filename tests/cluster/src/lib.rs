//! A real Kubernetes with real monitoring, from source.
