//! `gwmon inject` and `gwmon uninject`: manifests with the sidecar in them, for those who want no webhook, and without it again.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use super::output;
use super::preview::input::{Source, sources};
use super::preview::report::{note, unreadable, warn};
use super::preview::snapshot_of;
use super::preview::workload::{ask, malformed, preview};
use crate::cli::{Inject, Uninject};
use crate::cluster::Snapshot;
use crate::config::Config;
use crate::injection::predict::template_path;
use crate::manifest::{self, display_name, edit};
use crate::reload;

/// Prints the manifests with what gwmon injects, and every other byte as it was.
///
/// # Errors
/// A file that is not there, or is no text.
pub fn run(args: &Inject) -> Result<ExitCode> {
    let file = args.config.config.as_deref().map(reload::read).transpose()?.unwrap_or_default();
    let snapshot = args.prometheus.as_ref().map(snapshot_of).transpose()?.unwrap_or_default();
    let injector = Injector { args, config: args.config.config(&file, None), snapshot };
    let mut has_failed = false;
    let sources = sources(&args.manifests.filename, args.manifests.recursive)?;
    let several = sources.len() > 1;
    for (index, source) in sources.iter().enumerate() {
        let text = source.text()?;
        let mut written = String::with_capacity(text.len());
        let mut made = Vec::new();
        for document in manifest::split(&text) {
            let before = made.len();
            match injector.document(document, &mut made) {
                Ok(injected) => written.push_str(&injected.unwrap_or_else(|| document.to_owned())),
                Err(why) => {
                    has_failed = true;
                    unreadable(&source.name(), &why)?;
                    written.push_str(document);
                    made.truncate(before);
                }
            }
        }
        let written = edit::append(&written, &made);
        output::print(&joined(written, several, index > 0))?;
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints the manifests as they were before.
///
/// # Errors
/// A file that is not there, or is no text.
pub fn undo(args: &Uninject) -> Result<ExitCode> {
    let mut has_failed = false;
    let sources = sources(&args.manifests.filename, args.manifests.recursive)?;
    let several = sources.len() > 1;
    for (index, source) in sources.iter().enumerate() {
        let text = source.text()?;
        let restored = edit::undo(&text).and_then(|restored| match restored {
            None if text.contains(crate::annotations::STATUS) => Err(MARKS_LOST.to_owned()),
            restored => Ok(restored),
        });
        let restored = restored.or_else(|why| {
            has_failed = true;
            unreadable(&source.name(), &why).map(|()| None)
        })?;
        output::print(&joined(restored.unwrap_or(text), several, index > 0))?;
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

const MARKS_LOST: &str =
    "it is injected, and the comments by which gwmon finds what it added are gone; take it from your repository";

/// Several sources are one stream of documents, so each ends with its line.
fn joined(mut text: String, is_one_of_several: bool, follows: bool) -> String {
    if is_one_of_several && !text.ends_with('\n') {
        text.push('\n');
    }
    if follows && !text.starts_with("---") {
        text.insert_str(0, "---\n");
    }
    text
}

struct Injector<'a> {
    args: &'a Inject,
    config: Config,
    snapshot: Snapshot,
}

impl Injector<'_> {
    /// A document with what gwmon injects; `None` if it stays as it is. Adds the objects that gwmon would make for it.
    ///
    /// # Errors
    /// Why something that asks for it does not get it.
    fn document(&self, text: &str, made: &mut Vec<Value>) -> Result<Option<String>, String> {
        let Some(before) = manifest::value(text)? else { return Ok(None) };
        let mut after = before.clone();
        self.objects(&mut after, made)?;
        if before == after {
            return Ok(None);
        }
        if text.trim_start().starts_with('{') {
            return Err("it is JSON, which has no comments to mark what is added; write it as YAML".to_owned());
        }
        if edit::is_marked(text) {
            return Err("it has gwmon's own comments already; gwmon uninject takes them out".to_owned());
        }
        let written = edit::write(text, &before, &after)?;
        // The layout may be one that was not thought of.
        if manifest::value(&written)?.as_ref() != Some(&after) || edit::undo(&written)?.as_deref() != Some(text) {
            return Err("its YAML is laid out in a way that gwmon cannot add to; gwmon preview -o yaml writes it anew"
                .to_owned());
        }
        Ok(Some(written))
    }

    /// Injects an object, or the objects of a List.
    fn objects(&self, object: &mut Value, made: &mut Vec<Value>) -> Result<(), String> {
        if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
            return items.iter_mut().try_for_each(|item| self.objects(item, made));
        }
        let Some(path) = template_path(object) else { return Ok(()) };
        if let Some(why) = malformed(object) {
            return Err(why);
        }
        let namespace = self.args.namespace.as_deref().unwrap_or("default");
        let name = display_name(object, namespace);
        let is_placed = object["metadata"]["namespace"].is_string() || self.args.namespace.is_some();
        let mut asking = object.clone();
        if self.args.all {
            ask(&mut asking, path);
        }
        let told = |error: anyhow::Error| error.to_string();
        match preview(&self.config, &self.snapshot, &asking, path, namespace) {
            Ok(previewed) => {
                note(&name, &previewed.injection.status.summary()).map_err(told)?;
                for warning in &previewed.injection.warnings {
                    warn(&name, &warning.to_string()).map_err(told)?;
                }
                if let Some(plan) = previewed.plan.filter(|_| self.args.prometheus.is_some()) {
                    if !is_placed {
                        // kubectl would put the workload elsewhere than its Service.
                        return Err(format!("{name}: it names no namespace; say with --namespace where it is applied"));
                    }
                    for warning in &plan.warnings {
                        warn(&name, &warning.to_string()).map_err(told)?;
                    }
                    made.extend(plan.service);
                    made.extend(plan.monitors.map_err(|refusal| format!("{name}: {refusal}"))?);
                }
                *object = previewed.after;
                Ok(())
            }
            Err(refusal) if refusal.is_warning() => Err(format!("{name}: {refusal}")),
            Err(_) => Ok(()),
        }
    }
}

impl Source {
    /// The whole text.
    fn text(&self) -> Result<String> {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.open()?, &mut text)?;
        Ok(text)
    }
}
