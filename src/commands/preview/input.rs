//! The manifests that are named on the command line: files, folders and standard input, as kubectl takes them.

use std::fs::File;
use std::io::{self, Seek};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::manifest;

/// Files that are read in a folder.
const SUFFIXES: [&str; 3] = ["json", "yaml", "yml"];

/// One stream of documents. It can be read more than once.
#[derive(Debug)]
pub(in crate::commands) enum Source {
    File(PathBuf),
    /// A stream that can be read only once, copied to an anonymous file.
    Kept(String, File),
}

/// A document, and where it stands.
pub(super) struct Document {
    /// `edge.yaml, document 3, line 41`.
    pub(super) place: String,
    pub(super) value: Result<Value, String>,
}

/// The sources that `--filename` names: files, and the manifests in folders, with `--recursive` in their subfolders
/// too.
///
/// # Errors
/// A missing file, a folder without manifests, a URL.
pub(in crate::commands) fn sources(names: &[PathBuf], is_recursive: bool) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for name in names {
        let shown = name.display();
        let text = name.to_string_lossy();
        if name == Path::new("-") {
            sources.push(Source::Kept(
                "standard input".to_owned(),
                keep(io::stdin().lock()).context("cannot read standard input")?,
            ));
        } else if text.starts_with("http://") || text.starts_with("https://") {
            bail!("{shown}: gwmon fetches nothing; curl -sSfL {shown} | gwmon preview -f -");
        } else if name.is_dir() {
            let before = sources.len();
            folder(name, is_recursive, &mut sources).with_context(|| format!("cannot read {shown}"))?;
            if sources.len() == before {
                let deeper = if is_recursive { "" } else { "; -R looks into its folders too" };
                bail!("{shown} has no .json, .yaml or .yml file{deeper}");
            }
        } else {
            let cannot_read = || format!("cannot read {shown}");
            let file = File::open(name).with_context(cannot_read)?;
            // A pipe, as of `<(…)`, is read once.
            sources.push(if file.metadata().with_context(cannot_read)?.is_file() {
                Source::File(name.clone())
            } else {
                Source::Kept(shown.to_string(), keep(file).with_context(cannot_read)?)
            });
        }
    }
    Ok(sources)
}

fn keep(mut stream: impl io::Read) -> io::Result<File> {
    let mut kept = tempfile::tempfile()?;
    io::copy(&mut stream, &mut kept)?;
    Ok(kept)
}

/// In the order of names, as kubectl does.
fn folder(folder: &Path, is_recursive: bool, sources: &mut Vec<Source>) -> io::Result<()> {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if is_recursive {
                self::folder(&path, true, sources)?;
            }
        } else if path.extension().and_then(|suffix| suffix.to_str()).is_some_and(|suffix| SUFFIXES.contains(&suffix)) {
            sources.push(Source::File(path));
        }
    }
    Ok(())
}

impl Source {
    pub(in crate::commands) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Kept(name, _) => name.clone(),
        }
    }

    /// The file, from its beginning.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(in crate::commands) fn open(&self) -> Result<File> {
        match self {
            Self::File(path) => File::open(path).with_context(|| format!("cannot read {}", self.name())),
            Self::Kept(_, kept) => {
                let mut kept = kept.try_clone()?;
                kept.rewind()?;
                Ok(kept)
            }
        }
    }

    /// The documents, one after the other; of YAML and JSON only those whose text has one of these words, where there are any.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn documents(&self, words: &[&'static str]) -> Result<impl Iterator<Item = Result<Document>> + use<>> {
        let name = self.name();
        let cannot_read = format!("cannot read {name}");
        let file = self.open()?;
        Ok(manifest::documents(file, words).map(move |document| {
            let manifest::Document { number, line, value } = document.context(cannot_read.clone())?;
            Ok(Document { place: format!("{name}, document {number}, line {line}"), value })
        }))
    }

    /// The objects of a file that must be readable to its end.
    ///
    /// # Errors
    /// The first document that cannot be read; a file without objects.
    pub(super) fn objects(&self) -> Result<Vec<Value>> {
        let mut objects = Vec::new();
        for document in self.documents(&[])? {
            let Document { place, value } = document?;
            objects.extend(manifest::objects(value.map_err(|why| anyhow::anyhow!("{place}: {why}"))?));
        }
        if objects.is_empty() {
            bail!("{}: it holds no objects", self.name());
        }
        Ok(objects)
    }
}
