//! `gwmon install`: the manifests of `deploy/install.yaml`, with what was asked for.

mod check;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use serde_json::{Value, json};

use super::connection::Connection;
use super::output::{self, structured};
use crate::cli::{CertificateSource, Cli, Command, Install, Serve, Structured};
use crate::config::{EXPORTER_IMAGE, Image, Installation};
use crate::diagnosis::check::Verdict;

const MANIFESTS: &str = include_str!("../../../deploy/install.yaml");
/// The name and the namespace in the manifests.
const SHIPPED: &str = "gwmon";
/// The port on which the webhook listens in the manifests.
const PORT: u16 = 8443;

/// Prints the manifests; no cluster is asked. With `--check` it asks one, and prints what it found instead.
///
/// # Errors
/// Flags of `gwmon serve` that need other objects than these; for a check, a cluster that does not answer.
pub fn run(args: &Install) -> Result<ExitCode> {
    let objects = objects(args)?;
    if args.check {
        return check(args, &objects);
    }
    let text = match args.output {
        Structured::Json => {
            structured(Structured::Json, &json!({"apiVersion": "v1", "kind": "List", "items": objects}))?
        }
        Structured::Yaml => {
            let objects: Result<Vec<_>> = objects.iter().map(|object| structured(Structured::Yaml, object)).collect();
            objects?.join("---\n")
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what is checked of the cluster. Fails if gwmon cannot be installed, or would not work.
fn check(args: &Install, objects: &[Value]) -> Result<ExitCode> {
    let connection = Connection::open(&args.cluster)?;
    let installation = args.installation.installation();
    let checked = connection.run(check::check(&connection.client, &installation, objects))?;
    for (verdict, text) in &checked {
        anstream::println!("{}  {text}", output::verdict(*verdict));
    }
    let fails = checked.iter().any(|(verdict, _)| *verdict == Verdict::Fail);
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The manifests, with what was asked for.
fn objects(args: &Install) -> Result<Vec<Value>> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(MANIFESTS)?;
    let serve = flags(args)?;
    let installation = args.installation.installation();
    for object in &mut objects {
        if object["kind"] == "Deployment" {
            configure(object, args, &serve);
        }
        if object["kind"] == "Service" {
            replace_port(&mut object["spec"]["ports"], "targetPort", &serve);
        }
        if object["kind"] == "Namespace" && installation.namespace != SHIPPED {
            // It may be one that others use: no Pod Security for them, and no label by which `gwmon uninstall` deletes it.
            object["metadata"] = json!({"name": installation.namespace});
        }
        if object["kind"] != "Namespace" {
            rename("", object, &installation);
        }
    }
    Ok(objects)
}

/// The flags of `gwmon serve`, as it would parse them.
fn flags(args: &Install) -> Result<Box<Serve>> {
    let words = ["gwmon", "serve"].into_iter().chain(args.serve.iter().map(String::as_str));
    let Command::Serve(serve) = Cli::try_parse_from(words).unwrap_or_else(|error| error.exit()).command else {
        bail!("not flags of gwmon serve");
    };
    if serve.standalone || serve.client_ca.is_some() || serve.certificates != CertificateSource::SelfSigned {
        bail!(
            "--standalone, --client-ca and --certificates need other objects; use an overlay of deploy/overlays, certs/files or the chart"
        );
    }
    if serve.name != SHIPPED || args.serve.iter().any(|flag| flag.starts_with("--namespace")) {
        bail!("give --name and --namespace before the --");
    }
    Ok(Box::new(serve))
}

/// Sets what concerns gwmon's pods.
fn configure(deployment: &mut Value, args: &Install, serve: &Serve) {
    deployment["spec"]["replicas"] = json!(args.replicas);
    let pod = &mut deployment["spec"]["template"]["spec"];
    if !args.image_pull_secret.is_empty() {
        let secrets: Vec<_> = args.image_pull_secret.iter().map(|name| json!({"name": name})).collect();
        pod["imagePullSecrets"] = json!(secrets);
    }
    // It tries the image that gateways' pods get.
    pod["initContainers"][0]["image"] =
        json!(serve.config.exporter_image.as_ref().map_or(EXPORTER_IMAGE, Image::as_str));
    let container = &mut pod["containers"][0];
    if let Some(image) = &args.image {
        container["image"] = json!(image.as_str());
    }
    replace_port(&mut container["ports"], "containerPort", serve);
    if let Some(arguments) = container["args"].as_array_mut() {
        // A flag that is given replaces that of the manifests.
        arguments.retain(|shipped| {
            let flag = shipped.as_str().and_then(|shipped| shipped.split('=').next());
            !args.serve.iter().any(|given| given.split('=').next() == flag)
        });
        if args.installation.name != SHIPPED {
            arguments.push(json!(format!("--name={}", args.installation.name)));
        }
        arguments.extend(args.serve.iter().map(|flag| json!(flag)));
    }
}

/// Sets the webhook's port in a list of ports.
fn replace_port(ports: &mut Value, key: &str, serve: &Serve) {
    let port = serve.bind.map_or(PORT, |address| address.port());
    for entry in ports.as_array_mut().into_iter().flatten().filter(|entry| entry["name"] == "webhook") {
        entry[key] = json!(port);
    }
}

/// Gives an object another name and namespace, wherever it names one.
fn rename(key: &str, value: &mut Value, installation: &Installation) {
    match value {
        Value::String(text) => match (key, text.strip_prefix(SHIPPED)) {
            ("namespace" | "values", Some("")) => text.clone_from(&installation.namespace),
            ("name" | "app.kubernetes.io/name" | "serviceAccountName" | "resourceNames", Some(rest))
                if rest.is_empty() || rest.starts_with('-') =>
            {
                *text = format!("{}{rest}", installation.name);
            }
            _ => {}
        },
        Value::Array(items) => items.iter_mut().for_each(|item| rename(key, item, installation)),
        Value::Object(entries) => {
            // A container keeps its name.
            let is_container = key == "containers";
            for (key, value) in entries.iter_mut().filter(|(key, _)| !is_container || *key != "name") {
                rename(key, value, installation);
            }
        }
        _ => {}
    }
}
