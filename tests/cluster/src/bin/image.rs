//! `cargo image`: gwmon as a container image, without Docker.

use std::path::PathBuf;
use std::process::ExitCode;

use anstream::{eprintln, println};
use anstyle::AnsiColor;
use anyhow::Result;
use gwmon_cluster::{scenario, write_image};

fn main() -> ExitCode {
    let archive = match &std::env::args().skip(1).collect::<Vec<_>>()[..] {
        [] => PathBuf::from("gwmon.tar"),
        [path] if !path.starts_with('-') => PathBuf::from(path),
        _ => {
            eprintln!(
                "Builds gwmon and writes its container image for `docker load` and the like.\n\nUsage: cargo image [-- FILE]   [default: gwmon.tar]"
            );
            return ExitCode::from(2);
        }
    };
    match make(&archive) {
        Ok(image) => {
            println!("{image} is in {}", archive.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{red}error:{red:#} {error:#}", red = AnsiColor::Red.on_default().bold());
            ExitCode::FAILURE
        }
    }
}

fn make(archive: &std::path::Path) -> Result<String> {
    let image = scenario::image()?;
    write_image(archive, &image, &scenario::build_gwmon("dist")?)?;
    Ok(image)
}
